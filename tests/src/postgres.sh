# Runs a private Postgres in the folder $1 on port $2 of the loopback address, with the programs in $3, the
# password in $1/password and fsync $4, again and again whenever it ends, but not while there is a file
# $1/down; and removes the folder when it is told to end.
set -eu
folder=$1 port=$2 programs=$3 fsync=$4
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
over='' postgres=''
end() {
    over=1
    [ -z "$postgres" ] || kill -QUIT "$postgres" || true
}
trap end TERM INT
while [ -z "$over" ]; do
    if [ -e "$folder/down" ]; then
        sleep 0.02
        continue
    fi
    # A killed postmaster leaves processes behind for a moment, which a new one refuses to live with.
    $as setpriv --pdeathsig QUIT "$programs/postgres" -D "$folder/data" -p "$port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= -c "fsync=$fsync" -c "full_page_writes=$fsync" -c max_connections=300 \
        -c timezone=UTC &
    postgres=$!
    [ -z "$over" ] || end
    wait "$postgres" || true
    # The first wait may have been cut short by the signal.
    wait "$postgres" || true
    sleep 0.02
done
