package lmtp

import "strings"

// domains are the ones that mail is taken for, in lower case; none at all means any.
type domains map[string]struct{}

func newDomains(names []string) domains {
	d := make(domains, len(names))
	for _, name := range names {
		d[strings.ToLower(name)] = struct{}{}
	}
	return d
}

// take tells whether mail to address is taken. What stands behind the last @ counts, since a quoted local part may have one
// too. A recipient without a domain, such as postmaster, is always here. A domain in UTF-8 and its ASCII form are two names.
func (d domains) take(address string) bool {
	at := strings.LastIndexByte(address, '@')
	if len(d) == 0 || at < 0 {
		return true
	}
	_, ok := d[strings.ToLower(address[at+1:])]
	return ok
}
