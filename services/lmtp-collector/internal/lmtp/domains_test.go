package lmtp

import "testing"

func TestDomainsTake(t *testing.T) {
	some, all := newDomains([]string{"Example.org"}), newDomains(nil)
	for address, want := range map[string]bool{
		"b@example.org": true, "B@EXAMPLE.ORG": true, "a@b@example.org": true, "postmaster": true, "": true,
		"b@example.com": false, "b@sub.example.org": false, "b@example.org@example.com": false, "b@": false,
	} {
		if got := some.take(address); got != want {
			t.Errorf("%q: %v", address, got)
		}
		if !all.take(address) {
			t.Errorf("%q is refused though any domain is taken", address)
		}
	}
}
