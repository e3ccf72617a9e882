# curl in a shell loop. It processes a frame only at its empty line, and ignores lines that start with
# a colon.
set -u
export LC_ALL=C

report() { # kind, and more fields
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
                    report open
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
                report event ",\"event\":\"${event:-message}\",\"id\":\"$id\",\"data\":\"${data//\"/\\\"}\",\"retry\":$retry"
                [ -z "$id" ] || cursor=(-H "Last-Event-ID: $id")
                event='' data='' id=''
                ;;
            *) report malformed ;;
        esac
    done < <(exec curl --silent --no-buffer --include --noproxy '*' "${headers[@]}" "${cursor[@]}" "$CLIENT_URL")
    if [ -n "$status" ] && [ "$status" != 200 ]; then
        report over ",\"status\":$status"
        exit 0
    fi
    report cut
    sleep "$((retry / 1000)).$(printf '%03d' "$((retry % 1000))")"
done
