#!/usr/bin/env python3
"""Prints planted.json: how real programs print secrets.

Each entry has the variables of a process, and outputs as [program, before, secret, after]. The secret
is what must not be readable. The forms are made by the programs and libraries themselves, not by
Runcast's own encoders. Needs jq, node, grep, xxd, od and base64.
"""
import base64, binascii, html, json, shlex, subprocess, urllib.parse
from xml.sax import saxutils

def run(command, text="", **env):
    done = subprocess.run(command, input=text.encode(), capture_output=True, env={"PATH": "/usr/bin:/bin:/usr/local/bin", **env})
    return done.stdout.decode()

def node(code, value):
    return run(["node", "-e", f"process.stdout.write(String({code}))"], V=value)

PASSWORDS = ["hunter22", "S3cr3tPw9", "p&ss<w0rd>\"9", "it's $5 & <more>", "pässwörd-😀-1", "a+b/c=d?e#f%20g",
             "correct-horse-battery-9", "tok\\en\"with\\all'of`it", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
             "xK9/+mQ2vLr7Tz0aYw==", "l0ng " * 12 + "end", "ключ-доступа-77"]

entries = []
for value in PASSWORDS:
    forms = {
        "echo": value, "python json": json.dumps(value)[1:-1],
        "python json, no ascii": json.dumps(value, ensure_ascii=False)[1:-1],
        "json in json": json.dumps(json.dumps(value))[3:-3],
        "jq": run(["jq", "-n", "env.V"], V=value).strip()[1:-1],
        "jq -a": run(["jq", "-na", "env.V"], V=value).strip()[1:-1],
        "jq @html": run(["jq", "-nr", "env.V|@html"], V=value).rstrip("\n"),
        "jq @uri": run(["jq", "-nr", "env.V|@uri"], V=value).rstrip("\n"),
        "jq @base64": run(["jq", "-nr", "env.V|@base64"], V=value).rstrip("=\n"),
        "jq @csv": run(["jq", "-nr", "[env.V]|@csv"], V=value).rstrip("\n")[1:-1],
        "node json": node("JSON.stringify(process.env.V)", value)[1:-1],
        "node uri": node("encodeURIComponent(process.env.V)", value),
        "node form": node("new URLSearchParams({v: process.env.V})", value)[2:],
        "node hex": node("Buffer.from(process.env.V).toString('hex')", value),
        "node buffer": node("JSON.stringify(Buffer.from(process.env.V))", value)[25:-2],
        "node base64url": node("Buffer.from(process.env.V).toString('base64url')", value),
        "html.escape": html.escape(value), "html.escape, text": html.escape(value, quote=False),
        "saxutils": saxutils.escape(value), "xmlcharref": html.escape(value).encode("ascii", "xmlcharrefreplace").decode(),
        "quote": urllib.parse.quote(value), "quote, all": urllib.parse.quote(value, safe=""),
        "quote_plus": urllib.parse.quote_plus(value),
        "hex": binascii.hexlify(value.encode()).decode(), "HEX": binascii.hexlify(value.encode()).decode().upper(),
        "hex, spaces": value.encode().hex(" "), "hex, colons": value.encode().hex(":"),
        "shlex": shlex.quote(value).strip("'"), "printf %q": run(["bash", "-c", "printf %q \"$V\""], V=value, LC_ALL="C.UTF-8"),
        "set -x": run(["bash", "-c", "set -x; : \"$V\""], V=value) or value,
        "base64 of user:password": None,
    }
    forms.pop("base64 of user:password")
    outputs = []
    for program, text in forms.items():
        if "$'" in text:  # printf %q of several bytes: its inner text
            text = text[text.index("$'") + 2:].rstrip("'")
        outputs.append([program, "value: ", text, " end\n"])
    for before in ["u:", "me:", "bot:"]:
        encoded = base64.b64encode((before + value + "\n").encode()).decode()
        first = (len(before.encode()) * 8 + 5) // 6
        last = (len((before + value).encode()) * 8) // 6
        outputs.append(["base64 " + before, "Basic " + encoded[:first], encoded[first:last], encoded[last:] + "\n"])
    middle = len(value) // 2
    for program, start, end in [("grep --color", "\x1b[01;31m\x1b[K", "\x1b[m\x1b[K"), ("tput", "\x1b[1m", "\x1b(B\x1b[m"),
                                ("link", "\x1b]8;;http://x/\x1b\\", "\x1b]8;;\x1b\\"), ("cursor", "\x1b[2K\x1b[3G", "\x1b[?25h"),
                                ("true colour", "\x1b[38;2;1;2;3m", "\x1b[39m")]:
        outputs.append([program, "\x1b[32mkey\x1b[0m=", value[:middle] + start + value[middle:middle + 2] + end + value[middle + 2:], "\n"])
    for end in ["\n", "\r\n"]:
        outputs.append(["wrapped", "> ", value[:middle] + end + value[middle:], " <\n"])
    entries.append({"variables": {"DB_PASSWORD": value}, "outputs": outputs})

def fields(name, value, secrets, others=()):
    outputs = [["echo", "", value, "\n"]] if "\n" not in value else []
    outputs += [["one field", "got ", secret, " there\n"] for secret in secrets]
    entries.append({"variables": {name: value}, "outputs": outputs})

secret_json = {"user": "svc", "password": "correct-horse-9", "nested": {"token": "n3sted-t0ken", "list": [{"apiKey": "k3y-in-a-list"}]}}
text = json.dumps(secret_json)
fields("APP_SECRET", text, ["correct-horse-9", "n3sted-t0ken", "k3y-in-a-list"])
for program, command in [("jq .", ["jq", "."]), ("jq -c", ["jq", "-c", "."]), ("jq --tab", ["jq", "--tab", "."]), ("jq -C", ["jq", "-C", "."])]:
    out = run(command, text)
    before, _, after = out.partition("correct-horse-9")
    entries[-1]["outputs"].append([program, before, "correct-horse-9", after.replace("n3sted-t0ken", "").replace("k3y-in-a-list", "")])
fields("ENV_FILE_SECRETS", "DB_PASSWORD='p4ss word'\nexport API_TOKEN=t0ken-value\nMODE=fast", ["p4ss word", "t0ken-value"])
fields("PG_DSN", "host=db user=app password=p4ssword9 sslmode=require", ["p4ssword9"])
fields("SQL_CONNECTION_STRING", "Server=tcp:db,1433;User Id=sa;Password=P4ss!word;Encrypt=true", ["P4ss!word"])
fields("MY_NETRC", "machine h login me password n3trc-pass", ["n3trc-pass"])
fields("NPMRC_SECRET", "//registry.example/:_authToken=npm-t0ken-1\nalways-auth=true", ["npm-t0ken-1"])
auth = base64.b64encode(b"bot:dock3r-pass").decode()
fields("DOCKER_AUTH_CONFIG", json.dumps({"auths": {"r.example": {"auth": auth}}}), ["dock3r-pass", auth])
kube = "apiVersion: v1\nusers:\n- name: a\n  user:\n    token: k8s-t0ken-value\n    password: \"quoted-p4ss\"\n"
fields("KUBECONFIG_DATA", kube, ["k8s-t0ken-value", "quoted-p4ss"])
fields("KUBECONFIG_B64", base64.b64encode(kube.encode()).decode(), ["k8s-t0ken-value", "quoted-p4ss"])
fields("DB_CREDENTIALS", "admin\nS3cr3tPw9\n", ["S3cr3tPw9"])
for url, password in [("redis://:pa/ss#w0rd?x@host:6379/0", "pa/ss#w0rd?x"), ("postgres://me:p%40ssw0rd@h/d", "p@ssw0rd"),
                      ("postgresql://u:p@ss/w@rd#1@db/name", "p@ss/w@rd#1"), ("mysql://u:s3cr3t-pw@h:1,h2:2/db", "s3cr3t-pw"),
                      ("jdbc:mysql://h/db?user=x&password=p4ssword9", "p4ssword9")]:
    fields("SERVICE_URL", url, [password])
    entries[-1]["outputs"] = entries[-1]["outputs"][1:]

d, u, h = "4" * 2 + "7b91c0d2e8f3a6" * 5, "Qz8" + "aB3xK9mLw2" * 12, "0123456789abcdef" * 5
TOKENS = ["ghp_" + u[:36], "github_pat_" + u[:82], "glpat-" + u[:20], "glrt-" + u[:20], "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH", "gsk_" + u[:52],
          "sk-" + u[:48], "sk-ant-api03-" + u[:93] + "AA", "sk-or-v1-" + h[:64], "xoxb-123456789012-1234567890123-" + u[:24],
          "xoxc-" + u[:30], "xoxd-" + u[:20] + "%2F" + u[:10], "xapp-1-A123-456-" + h[:64], "AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPL2",
          "AIza" + u[:35], "ya29." + u[:60], "GOCSPX-" + u[:28], "SG." + u[:22] + "." + u[:43], "dop_v1_" + h[:64], "npm_" + u[:36],
          "pypi-AgEIcHlwaS5vcmc" + u[:70], "sk_live_" + u[:24], "rk_live_" + u[:24], "whsec_" + u[:32], "shpat_" + h[:32], "sq0atp-" + u[:22],
          "lin_api_" + u[:40], "ntn_" + d[:11] + u[:35], "hvs." + u[:95], "dckr_pat_" + u[:27], "pscale_tkn_" + u[:43], "sbp_" + h[:40],
          "tskey-auth-" + u[:20], "xai-" + u[:80], "r8_" + u[:37], "pplx-" + u[:48], "nvapi-" + u[:64], "SK" + h[:32], "xkeysib-" + h[:64] + "-" + u[:16],
          "dapi" + h[:32], "NRAK-" + "A1B2C3D4E5F6G7H8I9J0K1L2M3N", "PMAK-" + h[:24] + "-" + h[:34], "rubygems_" + h[:48], "glsa_" + u[:32] + "_" + h[:8],
          "dp.pt." + u[:43], u[:14] + ".atlasv1." + u[:64], "ATATT3" + u[:120], "HRKU-AA" + u[:58], "pul-" + h[:40], "figd_" + u[:40], "lsv2_pt_" + h[:32] + "_" + h[:10],
          "pcsk_" + u[:6] + "_" + u[:63], "CCIPAT_" + u[:22] + "_" + h[:40], "bkua_" + h[:40], "AGE-SECRET-KEY-1" + "QPZRY9X8GF" * 6, "EZAK" + u[:54],
          "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + u[:43], "ops_eyJ" + u[:110], "pat-na1-12345678-1234-1234-1234-123456789012",
          "glc_" + u[:60], "tfp_" + u[:59], "shippo_live_" + h[:40], "sntrys_eyJ" + u[:100], "123456789:AA" + u[:33], "sm_pat_" + u[:16], "phx_" + u[:43]]
entries.append({"variables": {}, "outputs": [[f"token {t[:6]}", before, t if ".atlasv1" not in t and ":AA" not in t else t[15:], after]
    for t in TOKENS for before, after in [("key ", "\n"), ("\x1b[32m", "\x1b[0m\n"), ("\"token\":\"", "\"}\n"), ("?key=", "&x=1\n")]
    if ".atlasv1" not in t and ":AA" not in t]})
print(json.dumps(entries, indent=0, ensure_ascii=False).replace("\x1b", "\\u001b"))
