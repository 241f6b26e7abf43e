package account

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// specialUses are the attributes of RFC 6154 §2 and RFC 8457, as we write them.
var specialUses = []string{`\All`, `\Archive`, `\Drafts`, `\Flagged`, `\Important`, `\Junk`, `\Sent`, `\Trash`}

// wildcards are the characters that make a name a pattern.
const wildcards = "*%?"

// inbox is written in any case (RFC 9051 §5.1).
const inbox = "INBOX"

// IsSpecialUse tells a special use from a name.
func IsSpecialUse(folder string) bool { return strings.HasPrefix(folder, `\`) }

// folderName returns a configured folder as we write it, or what is wrong with it, which reads on after the setting's name.
func folderName(text string) (folder, problem string) {
	switch {
	case strings.EqualFold(text, inbox):
		return inbox, ""
	case IsSpecialUse(text):
		for _, use := range specialUses {
			if strings.EqualFold(use, text) {
				return use, ""
			}
		}
		return "", fmt.Sprintf("cannot be %q: the special ones are %s", text, strings.Join(specialUses, " "))
	case !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\r\n"):
		return "", "must be a name in UTF-8, of one line"
	}
	return text, ""
}

// folderNames does that to a list, and takes doubles out.
func folderNames(list []string) (folders []string, problem string) {
	for _, text := range list {
		folder, problem := folderName(text)
		if problem != "" {
			return nil, "has a folder that " + problem
		}
		if !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
	}
	return folders, ""
}
