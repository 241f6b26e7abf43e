"""Prints the content_hash of a mail, as docs/contract.md defines it: python3 content_hash.py RECIPIENT… <MAIL"""
import hashlib, os, re, sys

WAY = (b"authentication-results date delivered-to dkim-signature envelope-to message-id received received-spf return-path "
       b"x-delivered-to x-envelope-to x-google-dkim-signature x-original-to x-received").split()


def content_hash(mail, recipients):
    lines = re.findall(rb"[^\n]*\n|[^\n]+", mail.replace(b"\r\n", b"\n"))
    kept, at, way = [], 0, False
    while at < len(lines) and lines[at] != b"\n":
        if at == 0 or lines[at][:1] not in (b" ", b"\t"):
            name, colon, _ = lines[at][:32].partition(b":")
            name = name.rstrip(b" \t").lower()
            way = bool(colon) and (name in WAY or name.startswith(b"arc-"))
        if not way:
            kept.append(lines[at])
        at += 1
    kept = b"".join(kept + lines[at:])
    known = {}
    for address in recipients:
        local, _, domain = address.rpartition(b"@")
        if 1 <= len(local) <= 64 and 1 <= len(domain) <= 255 and not re.search(rb"[\r\n]", address):
            known.setdefault(domain.lower(), []).append(local.lower())
    lower, out, done = kept.lower(), b"", 0
    for separator in re.finditer(rb"@|%40|=", kept):
        begin, end = separator.span()
        domain = max((d for d in known if lower.startswith(d, end)), key=len, default=None)
        if begin < done or domain is None:
            continue
        local = max((l for l in known[domain] if lower.endswith(l, done, begin)), key=len, default=None)
        if local is not None:
            out, done = out + kept[done:begin - len(local)] + b"@", end + len(domain)
    return hashlib.sha256(out + kept[done:]).hexdigest()


if __name__ == "__main__":
    print(content_hash(sys.stdin.buffer.read(), [os.fsencode(a) for a in sys.argv[1:]]))
