# Runs a private Postgres in the folder $1 on port $2 of the loopback address, with the programs in $3 and
# the password in $1/password, and removes the folder when it is told to end.
set -eu
folder=$1 port=$2 programs=$3
as=''
if [ "$(id -u)" -eq 0 ]; then
    # Postgres refuses to run as root.
    as='setpriv --reuid=postgres --regid=postgres --init-groups'
    chown -R postgres:postgres "$folder"
fi
cd "$folder"
trap 'rm -rf "$folder"' EXIT
$as "$programs/initdb" --pgdata="$folder/data" --username=postgres --pwfile="$folder/password" \
    --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync --no-instructions
# Nothing in it has to survive a crash of the machine.
$as setpriv --pdeathsig QUIT "$programs/postgres" -D "$folder/data" -p "$port" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= -c fsync=off -c full_page_writes=off -c max_connections=300 -c timezone=UTC &
postgres=$!
trap 'kill -QUIT "$postgres"' TERM INT
wait "$postgres" || true
# The first wait may have been cut short by the signal.
wait "$postgres" || true
