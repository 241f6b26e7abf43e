package account

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"spamtraps.internal/imap-collector/internal/auth"
)

func rules() Rules {
	return Rules{
		Defaults: Entry{
			CheckCert: true, Folders: []string{"INBOX", `\Junk`}, Fetch: FetchUnseen, After: After{Kind: AfterSeen}, PollInterval: 5 * time.Minute,
			MaxMessageBytes: 16 << 20, Enabled: true,
		},
		MaxMessageBytes: 16 << 20,
	}
}

func load(t *testing.T, yaml string, rules Rules) (path string, accounts []Account, problems []string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "mailboxes.yml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	accounts, problems = Load(path, rules, auth.NewTokens(""))
	return path, accounts, problems
}

// The file of the Python package's readme is read as it is, but for its second entry's user: there the same mailbox was there twice.
func TestOldFile(t *testing.T) {
	accounts, problems := Load("testdata/mailboxes.yml", rules(), auth.NewTokens(""))
	if len(problems) > 0 || len(accounts) != 2 {
		t.Fatalf("%d accounts, problems %q", len(accounts), problems)
	}
	first, second := accounts[0], accounts[1]
	if first.TLS != TLSImplicit || first.Port != 993 || first.Name != "user@domain@mail.mailserver.com" || first.ID != first.Name || !first.CheckCert || !first.Enabled {
		t.Errorf("the first is %+v", first)
	}
	if second.TLS != TLSStartTLS || second.Port != 143 || !slices.Equal(second.Folders, []string{"INBOX", `\Junk`}) {
		t.Errorf("the second is %+v", second)
	}
	m, err := first.Login.Mechanism(t.Context(), func(name string) bool { return name == auth.CommandLogin })
	if err != nil || m.Username != "user@domain" || m.Password != "secret" {
		t.Errorf("the first logs in by %+v, %v", m, err)
	}
}

// The example that is committed is right, and collects from one mailbox only until somebody writes more in it.
func TestExample(t *testing.T) {
	accounts, problems := Load("../../../../mailboxes.example.yml", rules(), auth.NewTokens(""))
	if len(problems) > 0 || len(accounts) != 4 || len(Select(accounts, 0, 1)) != 1 {
		t.Errorf("%d accounts, problems %q", len(accounts), problems)
	}
}

func TestNewKeys(t *testing.T) {
	dir := t.TempDir()
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, accounts, problems := load(t, `
- name: trap one
  id: old-host/anna
  username: anna
  password_file: `+password+`
  protocol: IMAP
  host: "[2001:db8::1]"
  tls: starttls
  check_cert: No
  folders: [inbox, \junk, "Lists.*", INBOX]
  fetch: all
  after: move:\trash
  poll_interval: 1m
  max_message_bytes: 1MiB
  proxy: socks5://user:p%40ss@proxy.example:1080
  enabled: off
- {username: bob, password: 0123, host: Mail.Example, tls: none, after: delete, folders: 'A, B'}
- {username: eve, host: h, port: 10993, after: nothing, fetch: new, ca_file: /ca.pem, oauth: {provider: google, client_id: x, refresh_token_file: `+password+`}}
`, rules())
	if len(problems) > 0 || len(accounts) != 3 {
		t.Fatalf("%d accounts, problems %q", len(accounts), problems)
	}
	one, bob, eve := accounts[0], accounts[1], accounts[2]
	proxy, _ := one.Proxy.Reveal()
	if one.Name != "trap one" || one.ID != "old-host/anna" || one.Host != "2001:db8::1" || one.Port != 143 || one.TLS != TLSStartTLS || one.CheckCert ||
		!slices.Equal(one.Folders, []string{"INBOX", `\Junk`, "Lists.*"}) || one.Fetch != FetchAll || one.After != (After{AfterMove, `\Trash`}) ||
		one.PollInterval != time.Minute || one.MaxMessageBytes != 1<<20 || one.Enabled || proxy != "socks5://user:p%40ss@proxy.example:1080" {
		t.Errorf("the first is %+v", one)
	}
	if bob.ID != "bob@mail.example" || bob.Port != 143 || bob.TLS != TLSNone || bob.After.Kind != AfterDelete || !slices.Equal(bob.Folders, []string{"A", "B"}) {
		t.Errorf("the second is %+v", bob)
	}
	if m, err := bob.Login.Mechanism(t.Context(), func(string) bool { return true }); err != nil || m.Password != "0123" {
		t.Errorf("the second's password is %q, %v", m.Password, err)
	}
	if eve.TLS != TLSImplicit || eve.Port != 10993 || eve.After.Kind != AfterNothing || eve.Fetch != FetchNew || eve.CAFile != "/ca.pem" {
		t.Errorf("the third is %+v", eve)
	}
}

// One row for each thing that can be wrong. FILE is the path; box is an entry that is right.
func TestRefusals(t *testing.T) {
	const box = "username: a, password: b, host: h"
	forgets := rules()
	forgets.Forgets = true
	goesOn := forgets
	goesOn.Continuous = true
	for _, row := range []struct {
		name  string
		yaml  string
		rules Rules
		want  []string
	}{
		{"empty file", "", rules(), []string{`FILE must hold at least one mailbox`}},
		{"feed file", "amqp: {}", rules(), []string{`FILE:1: must hold a list of maps, each beginning with "- ", not a map`}},
		{"unknown key", "- {" + box + ", folder: x}", rules(), []string{`FILE:1: folder is no setting: did you mean folders?`}},
		{"unknown key of oauth", "- {username: a, host: h, oauth: {token_file: x, scope: y}}", rules(), []string{`FILE:1: oauth.scope is no setting: did you mean oauth.scopes?`}},
		{"pop3", "- {" + box + ", protocol: pop3}", rules(), []string{`FILE:1: protocol must be imap, not "pop3"`}},
		{"nothing", "- {name: x}", rules(), []string{`FILE:1: host must be given`, `FILE:1: username must be given`, `FILE:1: password must be given, or password_file, or oauth`}},
		{"host with a port", "- {username: a, password: b, host: 'h:993'}", rules(), []string{"FILE:1: host must be a name or an address alone: the port is `port`"}},
		{"URL for a host", "- {username: a, password: b, host: 'imaps://h'}", rules(), []string{"FILE:1: host must be a name or an address alone: the port is `port`"}},
		{"port", "- {" + box + ", port: 70000}", rules(), []string{`FILE:1: port must be between 1 and 65535, not 70000`}},
		{"tls as a bool", "- {" + box + ", tls: True}", rules(), []string{`FILE:1: tls must be implicit or starttls or none, not "True"`}},
		{"check_cert", "- {" + box + ", check_cert: maybe}", rules(), []string{`FILE:1: check_cert must be true or false, not "maybe"`}},
		{"ca_file without check", "- {" + box + ", ca_file: x, check_cert: no}", rules(), []string{`FILE:1: ca_file contradicts check_cert, which is off`}},
		{"ca_file without TLS", "- {" + box + ", ca_file: x, tls: none}", rules(), []string{`FILE:1: ca_file contradicts tls: none`}},
		{"password twice", "- {" + box + ", password_file: /dev/null}", rules(), []string{`FILE:1: password and FILE:1: password_file are both set: choose one`}},
		{"password and oauth", "- {" + box + ", oauth: {token_file: x}}", rules(), []string{`FILE:1: password contradicts oauth: choose one`}},
		{"password's file missing", "- {username: a, host: h, password_file: /none}", rules(), []string{
			`FILE:1: password_file names a file that cannot be read: open /none: no such file or directory`,
		}},
		{"password with an exclamation mark", "- username: a\n  host: h\n  password: !hunter2", rules(), []string{`FILE:3: password begins with ! and so must be in quotes`}},
		{"user of two lines", `- {username: "a\nb", password: b, host: h}`, rules(), []string{`FILE:1: username must be text in UTF-8 of at most 200 bytes`}},
		{"special use", "- {" + box + ", folders: [INBOX, '\\Spam']}", rules(), []string{
			`FILE:1: folders has a folder that cannot be "\\Spam": the special ones are \All \Archive \Drafts \Flagged \Important \Junk \Sent \Trash`,
		}},
		{"after", "- {" + box + ", after: archive}", rules(), []string{`FILE:1: after cannot be "archive": it is seen, delete, move:FOLDER or nothing`}},
		{"after with a folder", "- {" + box + ", after: 'delete:x'}", rules(), []string{`FILE:1: after cannot be "delete:x": it is seen, delete, move:FOLDER or nothing`}},
		{"move nowhere", "- {" + box + ", after: 'move:'}", rules(), []string{`FILE:1: after cannot be "move:": move needs a folder, as in move:Archive`}},
		{"move to many", "- {" + box + ", after: 'move:A*'}", rules(), []string{`FILE:1: after cannot be "move:A*": mail moves to one folder, not to a pattern`}},
		{"fetch", "- {" + box + ", fetch: recent}", rules(), []string{`FILE:1: fetch must be unseen or all or new, not "recent"`}},
		{"poll", "- {" + box + ", poll_interval: 1s}", rules(), []string{`FILE:1: poll_interval must be at least 10s, not 1s`}},
		{"poll without unit", "- {" + box + ", poll_interval: 60}", rules(), []string{`FILE:1: poll_interval must be a time with its unit, like 500ms, 30s or 5m, not "60"`}},
		{"larger than the broker takes", "- {" + box + ", max_message_bytes: 17MiB}", rules(), []string{
			`FILE:1: max_message_bytes must be at most AMQP_MAX_MESSAGE_BYTES (16777216), or mail is fetched that the broker never takes, not 17825792`,
		}},
		{"proxy", "- {" + box + ", proxy: 'http://u:hunter2@p:1'}", rules(), []string{`FILE:1: proxy must begin with socks5://`}},
		{"proxy without a port", "- {" + box + ", proxy: 'socks5://u:hunter2@p'}", rules(), []string{`FILE:1: proxy must end in the proxy's port, as in socks5://proxy.example:1080`}},
		{"broken proxy", "- {" + box + ", proxy: 'socks5://u:hunter%2@p:1'}", rules(), []string{
			`FILE:1: proxy must be a URL like socks5://user:password@proxy.example:1080, with reserved characters percent-encoded`,
		}},
		{"name", "- {" + box + ", name: \"" + strings.Repeat("x", 201) + "\"}", rules(), []string{`FILE:1: name must be text in UTF-8 of at most 200 bytes`}},
		{"oauth without its parts", "- {username: a, host: h, oauth: {provider: microsoft, client_secret: hunter2}}", rules(), []string{
			"FILE:1: oauth.client_id must be given: it is the application's id with the provider (docs/oauth.md)",
			"FILE:1: oauth.tenant must be given: with grant: client_credentials the application belongs to one directory",
		}},
		{"same mailbox", "- {" + box + "}\n\n- {username: a, password: c, host: H, id: other, name: other}", rules(), []string{
			`FILE:3: username and host are those of line 1: the same mailbox is there twice`,
		}},
		{"same user at two ports", "- {" + box + "}\n- {" + box + ", port: 143}", rules(), []string{
			`FILE:2: id is "a@h" as in line 1: if these are two mailboxes, give one of them another id, else take one out`,
		}},
		{"same name", "- {" + box + ", name: x}\n- {username: b, password: b, host: h, name: x}", rules(), []string{`FILE:2: name is "x" as in line 1: each mailbox needs its own`}},
		{"new, and forgets", "- {" + box + ", fetch: new}", forgets, []string{`FILE:1: fetch can be new only with IMAP_STATE, a folder to remember in what was published`}},
		{"nothing, and forgets", "- {" + box + ", after: nothing}", forgets, []string{
			`FILE:1: after can be nothing only with IMAP_STATE, a folder to remember in what was published, or each look publishes all again`,
		}},
		{"all of it for ever, and forgets", "- {" + box + ", after: nothing, fetch: all}", goesOn, []string{
			`FILE:1: after can be nothing only with IMAP_STATE, a folder to remember in what was published, or each look publishes all again`,
		}},
		{"all of it once", "- {" + box + ", after: nothing, fetch: all}", forgets, nil},
		{"all at once", "- {username: a, password: b, host: h, port: x, tls: y}\n- {username: b}\n-", rules(), []string{
			`FILE:3: must be a map of settings, not nothing`,
			`FILE:1: port must be a whole number, not "x"`, `FILE:1: tls must be implicit or starttls or none, not "y"`,
			`FILE:2: host must be given`, `FILE:2: password must be given, or password_file, or oauth`,
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			path, _, problems := load(t, row.yaml, row.rules)
			var want []string
			for _, sentence := range row.want {
				want = append(want, strings.ReplaceAll(sentence, "FILE", path))
			}
			if !slices.Equal(problems, want) {
				t.Errorf("problems:\n%s\nwant:\n%s", strings.Join(problems, "\n"), strings.Join(want, "\n"))
			}
			if strings.Contains(strings.Join(problems, ""), "hunter") {
				t.Error("a problem shows a secret")
			}
		})
	}
}

// Another shard takes its part of each of the others, and nothing moves between those.
func TestShards(t *testing.T) {
	accounts := make([]Account, 3000)
	for i := range accounts {
		accounts[i] = Account{ID: fmt.Sprintf("trap-%d@imap.example", i), Enabled: i%3 != 0}
	}
	place := func(count int) map[string]int {
		where := make(map[string]int)
		for shard := range count {
			for _, a := range Select(accounts, shard, count) {
				if _, twice := where[a.ID]; twice {
					t.Fatalf("%s belongs to two of %d shards", a.ID, count)
				}
				where[a.ID] = shard
			}
		}
		return where
	}
	for count := 1; count < 8; count++ {
		before, after := place(count), place(count+1)
		if len(before) != 2000 || len(after) != 2000 {
			t.Fatalf("%d and %d of 2000 accounts have a shard", len(before), len(after))
		}
		moved, sizes := 0, make(map[int]int)
		for id, shard := range after {
			sizes[shard]++
			if before[id] == shard {
				continue
			}
			moved++
			if shard != count {
				t.Fatalf("with shard %d %s moved from %d to %d", count, id, before[id], shard)
			}
		}
		fair := 2000 / (count + 1)
		for _, size := range sizes {
			if size < fair*8/10 || size > fair*12/10 {
				t.Errorf("of %d shards one has %d accounts: %v", count+1, size, slices.Sorted(maps.Values(sizes)))
			}
		}
		if moved != sizes[count] {
			t.Errorf("%d moved, the new shard has %d", moved, sizes[count])
		}
	}
}

// Ids and message ids would change for everybody if this did.
func TestShardsStayWhereTheyAre(t *testing.T) {
	got := ""
	for i := range 20 {
		got += fmt.Sprint(shardOf(fmt.Sprintf("trap-%d@imap.example", i), 4))
	}
	if got != "10030000230003312333" {
		t.Errorf("the shards of twenty accounts are %s", got)
	}
}
