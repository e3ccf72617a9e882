# Runs a private Postgres in folder $1 on port $2 of the loopback address, with the programs in $3,
# the password in $1/password and fsync $4. Restarts it whenever it ends, but not while the file
# $1/down exists. Removes the folder on SIGTERM.
set -eu
folder=$1 port=$2 programs=$3 fsync=$4
run_as=''
if [ "$(id -u)" -eq 0 ]; then
    # Postgres refuses to run as root.
    run_as='setpriv --reuid=postgres --regid=postgres --init-groups'
    chown -R postgres:postgres "$folder"
fi
cd "$folder"
trap 'rm -rf "$folder"' EXIT
$run_as "$programs/initdb" --pgdata="$folder/data" --username=postgres --pwfile="$folder/password" \
    --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync --no-instructions
stopping='' postgres=''
end() {
    stopping=1
    [ -z "$postgres" ] || kill -QUIT "$postgres" || true
}
trap end TERM INT
while [ -z "$stopping" ]; do
    if [ -e "$folder/down" ]; then
        sleep 0.02
        continue
    fi
    # A killed postmaster leaves processes behind for a moment; a new one refuses to start
    # beside them.
    $run_as setpriv --pdeathsig QUIT "$programs/postgres" -D "$folder/data" -p "$port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= -c "fsync=$fsync" -c "full_page_writes=$fsync" -c max_connections=300 \
        -c timezone=UTC &
    postgres=$!
    [ -z "$stopping" ] || end
    wait "$postgres" || true
    # The signal may have interrupted the first wait.
    wait "$postgres" || true
    sleep 0.02
done
