# curl, with the loop around it that somebody writes who has nothing else. It takes a frame only when its empty line has
# come, and lines that begin with a colon for comments.
set -u
export LC_ALL=C

tell() { # what, and more fields
    printf '{"saw":"%s","at":%s%s}\n' "$1" "$((${EPOCHREALTIME/./} / 1000))" "${2:-}"
}

headers=(-H "Authorization: Bearer $CLIENT_TOKEN")
cursor=(${CLIENT_LAST_EVENT_ID+-H "Last-Event-ID${CLIENT_LAST_EVENT_ID:+: }${CLIENT_LAST_EVENT_ID:-;}"})
retry=3000
while :; do
    status='' in_head=yes event='' data='' id=''
    while IFS= read -r line; do
        if [ -n "$in_head" ]; then
            line="${line%$'\r'}"
            case "$line" in
                HTTP/*) status="${line#* }" status="${status%% *}" ;;
                '')
                    in_head=''
                    [ "$status" = 200 ] || break
                    tell open
                    ;;
            esac
            continue
        fi
        case "$line" in
            'event: '*) event="${line#event: }" ;;
            'data: '*) data="${line#data: }" ;;
            'id: '*) id="${line#id: }" ;;
            'retry: '*) retry="${line#retry: }" ;;
            :*) ;;
            '')
                data="${data//\\/\\\\}"
                tell event ",\"event\":\"${event:-message}\",\"id\":\"$id\",\"data\":\"${data//\"/\\\"}\",\"retry\":$retry"
                [ -z "$id" ] || cursor=(-H "Last-Event-ID: $id")
                event='' data='' id=''
                ;;
            *) tell malformed ;;
        esac
    done < <(exec curl --silent --no-buffer --include --noproxy '*' "${headers[@]}" "${cursor[@]}" "$CLIENT_URL")
    if [ -n "$status" ] && [ "$status" != 200 ]; then
        tell over ",\"status\":$status"
        exit 0
    fi
    tell cut
    sleep "$((retry / 1000)).$(printf '%03d' "$((retry % 1000))")"
done
