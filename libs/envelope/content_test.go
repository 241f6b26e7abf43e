package envelope_test

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"spamtraps.internal/libs/envelope"
)

func contentHash(mail string, recipients ...string) string {
	return envelope.ContentHash([]byte(mail), recipients...)
}

const campaign = "Received: from a by b\r\n\tfor <Trap.One@example.org>; Mon\r\nDATE: Mon\r\nMessage-ID : <1@x>\r\nDelivered-To: trap.one@example.org\r\n" +
	"ARC-Seal: x\r\nTo: trap.one@example.org\r\nSubject: you won\r\n\r\nDear TRAP.ONE@Example.org,\r\nDate: now\r\n" +
	"http://x.example/?u=trap.one%40example.org&v=bounce+trap.one=example.org\r\n"

// Copies of one campaign have one hash, and nothing that makes another campaign is passed over.
func TestContentHashGroups(t *testing.T) {
	want := contentHash(campaign, "trap.one@example.org")
	if sum := contentHash("Subject: you won\n\nDear @\n"); sum != contentHash("Subject: you won\r\n\r\nDear t@x\r\n", "t@x") {
		t.Error("the line ends or the address make a difference")
	}
	other := strings.NewReplacer("trap.one", "büro", "Trap.One", "BüRO", "TRAP.ONE", "BüRO", "example.org", "trap.example.net", "Example.org", "Trap.Example.NET",
		"DATE: Mon", "Date: Tue", "<1@x>", "<2@y>", "from a by b", "from c by d\r\n\twith SMTP").Replace(campaign)
	if got := contentHash(other, "someone@example.org", "büro@trap.example.net"); got != want {
		t.Error("a copy to another recipient has another hash")
	}
	for name, changed := range map[string]string{
		"a subject": strings.Replace(campaign, "you won", "you lost", 1), "a text": strings.Replace(campaign, "Dear", "Hi", 1),
		"a date in the text": strings.Replace(campaign, "Date: now", "Date: soon", 1), "another's address": strings.Replace(campaign, "Dear TRAP.ONE", "Dear two", 1),
	} {
		if contentHash(changed, "trap.one@example.org") == want {
			t.Errorf("%s makes no difference", name)
		}
	}
	if contentHash(campaign, "trap.one@example.org", "b@x") != contentHash(campaign, "b@x", "trap.one@example.org") {
		t.Error("the order of the recipients makes a difference")
	}
}

// The page lists the fields that are passed over, and the example computes the same for mails of any shape.
func TestContentHashAsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/contract.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(page), "are removed: ")
	list, _, _ = strings.Cut(list, "and all that begin")
	var listed []string
	for _, m := range regexp.MustCompile("`([a-z-]+)`").FindAllStringSubmatch(list, -1) {
		listed = append(listed, m[1])
	}
	if !slices.Equal(listed, envelope.WayFields) {
		t.Errorf("the page lists %q, removed are %q", listed, envelope.WayFields)
	}
	words := []string{
		"\r\n", "\n", "\r", "\n\n", ": ", "Date", "date", "\tx", " y", "ARC-x:", "Received:", "X-Received\t:", "Subject: s\r\n", "a@x.org", "A%40X.org", "b=x.org.uk", "ab@x.org",
		"@", "@x.org", "%4", "=", "%40=@", "ba", "\xff@x", "x.org", "\r\n\r\n", "z" + strings.Repeat("q", 40) + ":",
	}
	addresses := []string{"a@x.org", "ab@x.org", "b@x.org.uk", "\xff@x", "x@", "@y", "B@X.ORG", strings.Repeat("q", 65) + "@x.org", "a@x"}
	random := rand.New(rand.NewPCG(1, 2))
	var input, want strings.Builder
	const mails = 5000
	for range mails {
		var mail strings.Builder
		for range random.IntN(30) {
			mail.WriteString(words[random.IntN(len(words))])
		}
		var to []string
		for range random.IntN(5) {
			to = append(to, addresses[random.IntN(len(addresses))])
		}
		fmt.Fprintf(&input, "%x", mail.String())
		for _, address := range to {
			fmt.Fprintf(&input, " %s", hex.EncodeToString([]byte(address)))
		}
		input.WriteByte('\n')
		want.WriteString(contentHash(mail.String(), to...) + "\n")
	}
	python := exec.CommandContext(t.Context(), "python3", "-c", `import sys
sys.path.insert(0, "../../docs/examples")
from content_hash import content_hash
for line in sys.stdin:
    mail, *to = [bytes.fromhex(x) for x in line.rstrip("\n").split(" ")]
    print(content_hash(mail, to))
`)
	python.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	python.Stdin = strings.NewReader(input.String())
	python.Stderr = os.Stderr
	got, err := python.Output()
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs, given := strings.Split(want.String(), "\n"), strings.Split(string(got), "\n"), strings.Split(input.String(), "\n")
	different := 0
	for i := range mails {
		if mine[i] != theirs[i] {
			if different++; different < 4 {
				mail, _, _ := strings.Cut(given[i], " ")
				raw, _ := hex.DecodeString(mail)
				t.Errorf("mail %q, to %s", raw, given[i][len(mail):])
			}
		}
	}
	if different > 0 {
		t.Errorf("%d of %d differ", different, mails)
	}
}

func FuzzContentHash(f *testing.F) {
	f.Add([]byte(campaign), "trap.one@example.org", "x@example.org")
	f.Fuzz(func(t *testing.T, mail []byte, a, b string) {
		if envelope.ContentHash(mail, a, b) != envelope.ContentHash(mail, b, a, a) {
			t.Error("the order of the recipients makes a difference")
		}
	})
}

func BenchmarkContentHash(b *testing.B) {
	mail := []byte(campaign + strings.Repeat("A line of a mail that has nothing in particular, but = and @ at times.\r\n", 140))
	b.SetBytes(int64(len(mail)))
	for b.Loop() {
		envelope.ContentHash(mail, "trap.one@example.org")
	}
}
