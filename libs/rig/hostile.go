package rig

import (
	"bytes"
	"math/rand/v2"
	"strings"
)

// fragments are what bodies of mail break on, in one server or another.
var fragments = []string{
	"\r\n.\r\n", "\n.\n", "\r.\r", "\n.\r\n", "\r\n.\n", "\r\n.\r", "\r.\r\n", "\r\r\n.\r\n", "\r\n.\r\r\n", "\r\n..\r\n", "\r\n.", ".", "..", "\r\n. \r\n", "\r\n.\x00\r\n",
	"\r", "\n", "\r\n", "\n\r", "\r\r", "\n\n", "\r\r\n", "\r\n\r\n", "\x00", "\x00\r\n", "\x1a", "\x04", "\xff", "\xfe\xff", "\xc0\xaf", "\xed\xa0\x80", "\xe4\xf6\xfc",
	"\u202e", "\u2028", "\x1b[2J", "\t", " ", "MAIL FROM:<evil@x.example>\r\n", "RCPT TO:<b@y.example>\r\n", "DATA\r\n", "QUIT\r\n", "RSET\r\n", "BDAT 5 LAST\r\n",
	"BDAT 0\r\n", "NOOP\r\n", "LHLO x\r\n", "STARTTLS\r\n", "354 go\r\n", "250 ok\r\n", "From a@b Tue Nov 24 08:00:00 2026\r\n", ">From \r\n", "Subject: s\r\n", "Subject : s\r\n", " folded\r\n",
	"Content-Type: multipart/mixed; boundary=\"b\"\r\n", "\r\n--b\r\n", "\r\n--b--\r\n", "=?utf-8?q?=ff?=", "begin 644 x\r\n", "Content-Transfer-Encoding: binary\r\n", "X: \x00\r\n", "%s%n", "<script>",
	"Received: by x; Tue, 24 Nov 2026 08:00:00 +0000\r\n", "Return-Path: <>\r\n", "Bcc: x@y.example\r\n", "plain text\r\n",
}

// HostileBody returns the body of a mail that is hard to carry: any bytes, false ends, long lines, commands. It ends in CRLF, as every mail
// that comes by DATA does. Most have some hundred bytes, a few some hundred thousand.
func HostileBody(r *rand.Rand) []byte {
	var body bytes.Buffer
	for range r.IntN(30) {
		switch r.IntN(20) {
		case 0:
			body.Write(noise(r, r.IntN(200)))
		case 1:
			body.WriteString(strings.Repeat(fragments[r.IntN(len(fragments))], r.IntN(50)))
		case 2:
			if r.IntN(10) == 0 {
				body.WriteString(strings.Repeat("x", r.IntN(300_000)))
			}
		default:
			body.WriteString(fragments[r.IntN(len(fragments))])
		}
	}
	body.WriteString("\r\n")
	return body.Bytes()
}

func noise(r *rand.Rand, n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}
