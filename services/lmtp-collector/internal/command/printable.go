package command

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
)

// printable returns text of a mail, or about one, with nothing in it that a terminal acts upon.
func printable(text string) string {
	return escape(text, unicode.IsPrint)
}

// printableJSON does that to JSON, which says the same afterwards.
func printableJSON(data []byte) string {
	return escape(string(data), func(r rune) bool { return r == '\n' || unicode.IsPrint(r) })
}

func escape(text string, plain func(rune) bool) string {
	var out strings.Builder
	for _, r := range text {
		switch {
		case plain(r):
			out.WriteRune(r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.String()
}
