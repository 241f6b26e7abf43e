package envelope_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rabbitmq/amqp091-go"

	"spamtraps.internal/libs/envelope"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	body   = "Subject: you won\r\n\r\n"
	sha256 = "183c853b83aac55f970cb61eae52f1a300f5d2ef5227a1c67a4f577a12347cd6"
)

// sample returns an envelope with what every mail has.
func sample() *envelope.Envelope {
	return &envelope.Envelope{
		App:       "lmtp-collector/1.4.0",
		Sensor:    "trap-1",
		Collector: "lmtp-collector",
		SHA256:    sha256,
		Size:      int64(len(body)), ContentHash: envelope.ContentHash([]byte(body)),
		ReceivedAt: time.Date(2026, 11, 23, 16, 18, 10, 42_999_999, time.UTC),
		MailID:     envelope.MailID("", sha256),
	}
}

// samples is one envelope of each kind that the contract knows.
func samples() map[string]*envelope.Envelope {
	lmtp := sample()
	lmtp.MTAReceivedAt = time.Date(2026, 11, 21, 9, 0, 1, 0, time.FixedZone("", 3600))
	lmtp.MailID = envelope.MailID("4QhX2j0Zq5z1B", sha256)
	lmtp.LMTP = &envelope.LMTP{
		MailFrom: "bounce@spam.example", RcptTo: []string{"trap@example.org", "Büro@müller.example", `"a b@c"@example.org`},
		LHLO: "mx1.example.org", Peer: "::ffff:172.20.0.3",
		ClientAddr: "IPV6:2001:DB8:0::1", ClientPort: 52144, ClientName: "host.spam.example", ClientHELO: "[2001:db8::1]",
		ClientProto: "ESMTP", QueueID: "4QhX2j0Zq5z1B",
	}

	null := sample()
	null.LMTP = &envelope.LMTP{RcptTo: []string{"trap@example.org"}, LHLO: "mx1.example.org", Peer: "172.20.0.3:41234"}

	hostile := sample()
	hostile.Sensor = "<script>\x00\x1b[2J\u202e"
	hostile.LMTP = &envelope.LMTP{
		MailFrom: "\xff\xfe@spam.example", RcptTo: []string{"trap@example.org", "\x80@example.org"},
		LHLO: strings.Repeat("h", envelope.MaxValueBytes+1), Peer: "unix",
		ClientName: "x" + strings.Repeat("ü", envelope.MaxValueBytes), ClientHELO: "\xc3" + strings.Repeat("x", envelope.MaxValueBytes),
	}

	many := sample()
	full := fullList(func(i int) string { return fmt.Sprintf("trap%04d@example.org", i) })
	many.LMTP = &envelope.LMTP{MailFrom: "bounce@spam.example", RcptTo: full.List()}

	imap := sample()
	imap.App, imap.Collector = "imap-collector/1.4.0", "imap-collector"
	imap.IMAP = &envelope.IMAP{
		Mailbox: "gmail-1", Host: "imap.gmail.com", Folder: "[Gmail]/Spam", Junk: true, UID: 4294967295, UIDValidity: 1,
		Flags: []string{`\Recent`, "$Junk"}, InternalDate: time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC),
	}

	file := sample()
	file.Replayed = true

	all := map[string]*envelope.Envelope{
		"lmtp": lmtp, "null-sender": null, "hostile": hostile, "recipients": many, "imap": imap, "file": file,
	}
	for _, e := range all {
		setMessageID(e)
	}
	return all
}

// fullList adds addresses until one is refused.
func fullList(addr func(i int) string) *envelope.Recipients {
	r := new(envelope.Recipients)
	for i := 0; r.Add(addr(i)); i++ {
		if i > 2*envelope.MaxRecipientsBytes {
			panic("the list never gets full")
		}
	}
	return r
}

func setMessageID(e *envelope.Envelope) {
	switch {
	case e.LMTP != nil:
		e.MessageID = envelope.LMTPMessageID(e.LMTP.QueueID, e.SHA256, e.LMTP.MailFrom, e.LMTP.RcptTo)
	case e.IMAP != nil:
		e.MessageID = envelope.IMAPMessageID(e.IMAP.Mailbox, e.IMAP.Folder, e.IMAP.UIDValidity, e.IMAP.UID)
	default:
		e.MessageID = envelope.ReplayMessageID(e.SHA256)
	}
}

func publishing(t *testing.T, e *envelope.Envelope) amqp091.Publishing {
	t.Helper()
	m, err := e.Publishing([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// delivery is m as a consumer gets it, when the broker and amqp091 keep it as it is; TestWire shows that they do.
func delivery(m amqp091.Publishing) *amqp091.Delivery {
	return &amqp091.Delivery{Headers: m.Headers, MessageId: m.MessageId, AppId: m.AppId, Timestamp: m.Timestamp, Body: m.Body}
}

// TestGolden holds the contract: a changed file is a change that consumers see (docs/contract.md).
func TestGolden(t *testing.T) {
	for name, e := range samples() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name+".golden")
			got := render(publishing(t, e))
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the message differs from %s; -update writes it anew.\ngot:\n%s\nwant:\n%s", path, got, want)
			}
		})
	}
}

// render returns a message as text, one property or header a line, with the type that is on the wire.
func render(m amqp091.Publishing) string {
	var out strings.Builder
	for property, value := range reflect.ValueOf(m).Fields() {
		if property.Name != "Headers" && !value.IsZero() {
			fmt.Fprintf(&out, "%s: %s\n", property.Name, show(value.Interface()))
		}
	}
	fmt.Fprintf(&out, "\nheaders of %d bytes\n", envelope.TableSize(m.Headers))
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		fmt.Fprintf(&out, "%s: %s\n", name, show(m.Headers[name]))
	}
	return out.String()
}

func show(value any) string {
	switch v := value.(type) {
	case string:
		if len(v) > 200 {
			return fmt.Sprintf("text of %d bytes, from %q to %q", len(v), v[:21], v[len(v)-20:])
		}
		return fmt.Sprintf("text %q", v)
	case time.Time:
		return "second " + v.Format(time.RFC3339)
	case []byte:
		return fmt.Sprintf("bytes %q", v)
	case []any:
		if len(v) > 10 {
			return fmt.Sprintf("array of %d, from %s to %s", len(v), show(v[0]), show(v[len(v)-1]))
		}
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = show(item)
		}
		return "array of " + strings.Join(items, ", ")
	}
	return fmt.Sprintf("%T %v", value, value)
}

// TestSamplesComeBack shows the two ends of a cap: what is within it is exact, what is over it is recorded.
func TestSamplesComeBack(t *testing.T) {
	for name, sent := range samples() {
		got, err := envelope.Parse(delivery(publishing(t, sent)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := asWritten(sent); !reflect.DeepEqual(got, want) {
			t.Errorf("%s came back as %+v, want %+v", name, got, want)
		}
	}
}

// asWritten is the envelope less what the contract says is lost: below the millisecond, over the cap, the many forms of an address.
func asWritten(sent *envelope.Envelope) *envelope.Envelope {
	e := *sent
	e.ReceivedAt = e.ReceivedAt.Truncate(time.Millisecond).UTC()
	e.MTAReceivedAt = e.MTAReceivedAt.Truncate(time.Millisecond).UTC()
	if e.IMAP != nil {
		imap := *e.IMAP
		imap.InternalDate = imap.InternalDate.Truncate(time.Millisecond).UTC()
		e.IMAP = &imap
	}
	if e.LMTP != nil {
		lmtp := *e.LMTP
		lmtp.Peer, lmtp.ClientAddr = envelope.CanonicalAddr(lmtp.Peer), envelope.CanonicalAddr(lmtp.ClientAddr)
		for _, text := range []*string{&lmtp.LHLO, &lmtp.ClientName, &lmtp.ClientHELO} {
			kept := (*text)[:min(len(*text), envelope.MaxValueBytes)]
			if utf8.ValidString(*text) {
				kept = strings.ToValidUTF8(kept, "") // less the half character at the end
			}
			*text = kept
		}
		e.LMTP = &lmtp
	}
	return &e
}

// fill sets all of v, by its type, so that a field that is added later is part of every proof below.
func fill(v reflect.Value, text func() string, number func() uint64) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text, number)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			const year1, year10000 = -62_135_596_800_000, 253_402_300_800_000
			v.Set(reflect.ValueOf(time.UnixMilli(year1 + int64(number()%(year10000-year1))).UTC()))
			return
		}
		for _, field := range v.Fields() {
			fill(field, text, number)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), int(1+number()%5), 5))
		for i := range v.Len() {
			fill(v.Index(i), text, number)
		}
	case reflect.String:
		v.SetString(text())
	case reflect.Bool:
		v.SetBool(number()%2 == 1)
	case reflect.Int:
		v.SetInt(int64(number() % (1 << 16)))
	case reflect.Int64:
		v.SetInt(int64(len(body)))
	case reflect.Uint32:
		v.SetUint(number() % (1 << 32))
	default:
		panic("the tests cannot fill a field of type " + v.Type().String())
	}
}

// FuzzRoundTrip: whatever the bytes in whatever field, within the caps an envelope comes back exactly as it was sent, and all
// text of the message is valid UTF-8.
func FuzzRoundTrip(f *testing.F) {
	f.Add(uint64(1), "trap@example.org", "")
	f.Add(uint64(2), "\xff\x00\x1b\u202e", "x")
	f.Add(uint64(3), strings.Repeat("ü", 600), "\xc3")
	f.Add(uint64(4), "IPv6:2001:db8::1", "[::ffff:1.2.3.4]")
	f.Fuzz(func(t *testing.T, seed uint64, text, other string) {
		random := rand.New(rand.NewPCG(seed, 0))
		pick := func() string {
			whole := text
			if random.IntN(3) == 0 {
				whole = other
			}
			from := random.IntN(len(whole) + 1)
			return whole[from : from+random.IntN(min(len(whole)-from, envelope.MaxFlagBytes)+1)]
		}
		e := new(envelope.Envelope)
		fill(reflect.ValueOf(e).Elem(), pick, random.Uint64)
		e.App = "lmtp-collector/1.4.0"
		if seed%2 == 0 {
			e.LMTP = nil
		} else {
			e.IMAP = nil
		}
		setMessageID(e)

		m := publishing(t, e)
		for name, value := range m.Headers {
			requireUTF8(t, name, value)
		}
		got, err := envelope.Parse(delivery(m))
		if err != nil {
			t.Fatal(err)
		}
		if want := asWritten(e); !reflect.DeepEqual(got, want) {
			t.Errorf("sent %+v (LMTP %+v, IMAP %+v)\ngot %+v (LMTP %+v, IMAP %+v)", want, want.LMTP, want.IMAP, got, got.LMTP, got.IMAP)
		}
	})
}

func requireUTF8(t *testing.T, name string, value any) {
	t.Helper()
	switch v := value.(type) {
	case string:
		if !utf8.ValidString(v) {
			t.Errorf("header %s is not UTF-8: %q", name, v)
		}
	case []any:
		for _, item := range v {
			requireUTF8(t, name, item)
		}
	}
}

// worst returns an envelope with every text hostile and over its cap, more flags than are kept, and the recipients given.
func worst(recipients []string) *envelope.Envelope {
	e := new(envelope.Envelope)
	text := func() string { return strings.Repeat("\xff", 2*envelope.MaxValueBytes) }
	fill(reflect.ValueOf(e).Elem(), text, func() uint64 { return 253_402_300_799_999 })
	e.App, e.MessageID = strings.Repeat("a", 255), strings.Repeat("m", 255)
	if recipients == nil {
		e.LMTP = nil
		e.IMAP.Flags = slices.Repeat([]string{text()}, 2*envelope.MaxFlags)
		return e
	}
	e.IMAP = nil
	e.LMTP.RcptTo = recipients
	return e
}

func TestWorstIMAPFits(t *testing.T) {
	m := publishing(t, worst(nil))
	if size := envelope.TableSize(m.Headers); size > envelope.MaxTableBytes-8<<10 {
		t.Errorf("headers take %d bytes, which leaves less than 8 KiB for headers of tomorrow", size)
	}
	if got := len(m.Headers["flags"].([]any)); got != envelope.MaxFlags {
		t.Errorf("%d flags, want %d", got, envelope.MaxFlags)
	}
	for _, name := range []string{"base64", "truncated"} {
		recorded := m.Headers[name].([]any)
		others := slices.DeleteFunc(slices.Clone(recorded), func(name any) bool { return name == "flags" })
		if len(others) != len(recorded)-1 {
			t.Errorf("%s does not name flags once: %v", name, recorded)
		}
	}
}

// requireFits is the promise of Recipients: what Add took can be published, whole and in order, beside the worst of all else.
func requireFits(t *testing.T, offered []string) {
	t.Helper()
	var recipients envelope.Recipients
	var taken []string
	for _, addr := range offered {
		if recipients.Add(addr) {
			taken = append(taken, addr)
		}
	}
	if !slices.Equal(recipients.List(), taken) {
		t.Fatalf("List has %d addresses, Add took %d", len(recipients.List()), len(taken))
	}
	if len(taken) == 0 || taken[0] != offered[0] {
		t.Fatalf("the first address was not taken: %.100q", offered[0])
	}
	m := publishing(t, worst(taken))
	if size := envelope.TableSize(m.Headers); size > envelope.MaxTableBytes {
		t.Errorf("%d recipients: headers take %d bytes", len(taken), size)
	}
	const mostThatAMQP091Reads = 8192
	if written := m.Headers["rcpt_to"].([]any); len(written) != len(taken) || len(written) > mostThatAMQP091Reads {
		t.Errorf("%d of %d recipients were written", len(written), len(taken))
	}
}

func TestRecipientsAlwaysFit(t *testing.T) {
	long := strings.Repeat("x", 2*envelope.MaxRecipientsBytes)
	for _, offered := range [][]string{
		slices.Repeat([]string{""}, 20_000),
		slices.Repeat([]string{"a"}, 20_000),
		slices.Repeat([]string{"\xff"}, 20_000),
		slices.Repeat([]string{long}, 100),
		slices.Repeat([]string{"\xff" + long}, 100),
		append(slices.Repeat([]string{"trap@example.org"}, 20_000), "\xff", ""),
	} {
		requireFits(t, offered)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		offered := make([]string, 1+random.IntN(3000))
		for i := range offered {
			addr := make([]byte, random.IntN(1<<random.IntN(12)))
			for j := range addr {
				addr[j] = byte('a' + random.IntN(26))
			}
			if len(addr) > 0 && random.IntN(1000) == 0 {
				addr[0] = 0xff
			}
			offered[i] = string(addr)
		}
		requireFits(t, offered)
	}
}

func FuzzRecipients(f *testing.F) {
	f.Add("trap@example.org\n\xff@example.org\n", uint16(3000))
	f.Add("\n", uint16(9000))
	f.Fuzz(func(t *testing.T, lines string, times uint16) {
		addresses := strings.Split(lines, "\n")
		requireFits(t, slices.Repeat(addresses, 1+int(times)%(1+20_000/len(addresses))))
	})
}

func TestRecipients(t *testing.T) {
	legal := strings.Repeat("l", 64) + "@" + strings.Repeat("d", 255)
	r := fullList(func(int) string { return legal })
	before, n := r.List(), len(r.List())
	if n < 100 {
		t.Errorf("only %d recipients of the largest legal length fit", n)
	}
	if r.Add(legal) || len(r.List()) != n {
		t.Error("a refused address changed the list")
	}
	if !r.Add("a@b") {
		t.Error("a short address has no room beside refused long ones")
	}
	r.Reset()
	if r.List() != nil || !r.Add("next@example.org") {
		t.Error("Reset does not empty the list")
	}
	if len(before) != n || before[0] != legal {
		t.Error("Reset changed the list of the mail before")
	}
}

// TestMailDataStaysInHeaders: nothing that a sender chose reaches a property that a broker or a client library acts on.
func TestMailDataStaysInHeaders(t *testing.T) {
	m := publishing(t, worst([]string{"\xff"}))
	mayBeSet := []string{"Headers", "ContentType", "DeliveryMode", "MessageId", "Timestamp", "Type", "AppId", "Body"}
	for property, value := range reflect.ValueOf(m).Fields() {
		if isSet := !value.IsZero(); isSet != slices.Contains(mayBeSet, property.Name) {
			t.Errorf("property %s is %v", property.Name, value)
		}
	}
	if m.ContentType != "message/rfc822" || m.DeliveryMode != 2 || m.Type != "mail" || string(m.Body) != body {
		t.Errorf("content type %q, delivery mode %d, type %q, body %q", m.ContentType, m.DeliveryMode, m.Type, m.Body)
	}
}

func TestPublishingRefuses(t *testing.T) {
	tooMany := slices.Repeat([]string{strings.Repeat("r", envelope.MaxValueBytes)}, 100)
	for _, row := range []struct {
		want  string
		spoil func(e *envelope.Envelope)
	}{
		{"message id", func(e *envelope.Envelope) { e.MessageID = "" }},
		{"message id", func(e *envelope.Envelope) { e.MessageID = strings.Repeat("m", 256) }},
		{"message id", func(e *envelope.Envelope) { e.MessageID = "m\xff" }},
		{"message id", func(e *envelope.Envelope) { e.MessageID = "m\n" }},
		{"app", func(e *envelope.Envelope) { e.App = strings.Repeat("a", 256) }},
		{"size says 3 bytes, the body has 20", func(e *envelope.Envelope) { e.Size = 3 }},
		{"not by both", func(e *envelope.Envelope) { e.IMAP = new(envelope.IMAP) }},
		{"no recipient", func(e *envelope.Envelope) { e.LMTP.RcptTo = nil }},
		{"more than 65536", func(e *envelope.Envelope) { e.LMTP.RcptTo = tooMany }},
	} {
		e := samples()["lmtp"]
		row.spoil(e)
		if _, err := e.Publishing([]byte(body)); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("error %v, want one with %q", err, row.want)
		}
	}
	bytesOnly := sample()
	bytesOnly.MessageID = "x"
	if got, err := envelope.Parse(delivery(publishing(t, bytesOnly))); err != nil || got.LMTP != nil || got.IMAP != nil {
		t.Errorf("a mail of which only the bytes are known came back as %+v, %v", got, err)
	}
}

func TestOddYearsAreLeftOut(t *testing.T) {
	e := samples()["lmtp"]
	for _, year := range []int{-1, 10_000} {
		e.MTAReceivedAt = time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
		if value, there := publishing(t, e).Headers["mta_received_at"]; there {
			t.Errorf("year %d was written as %v", year, value)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, row := range []struct {
		name    string
		value   any
		want    string
		foreign bool
	}{
		{"contract", nil, "version 0, known is 1", true},
		{"contract", int64(2), "version 2, known is 1", true},
		{"contract", "1", "unknown contract", true},
		{"size", "20", "header size: want an integer, not string", false},
		{"size", int64(-1), "header size: -1 is not between 0 and", false},
		{"client_port", int64(65536), "header client_port: 65536 is not between 0 and 65535", false},
		{"sensor", int64(1), "header sensor: want text, not int64", false},
		{"rcpt_to", "trap@example.org", "header rcpt_to: want an array, not string", false},
		{"rcpt_to", []any{true}, "header rcpt_to: want text, not bool", false},
		{"base64", []any{"lhlo"}, "header lhlo: illegal base64", false},
		{"received_at", "yesterday", "header received_at: parsing time", false},
		{"uid", int64(1), "not by both", false},
		{"junk", "yes", "", false}, // of a mail that came by LMTP: a header like any that is not known
	} {
		m := publishing(t, samples()["lmtp"])
		m.Headers[row.name] = row.value
		_, err := envelope.Parse(delivery(m))
		if row.want == "" {
			if err != nil {
				t.Errorf("%s = %v: %v", row.name, row.value, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), row.want) || errors.Is(err, envelope.ErrContract) != row.foreign {
			t.Errorf("%s = %v: error %v, want one with %q", row.name, row.value, err, row.want)
		}
	}
	for name, value := range map[string]any{"uid": int64(1 << 32), "uidvalidity": int64(-1), "junk": "yes"} {
		m := publishing(t, samples()["imap"])
		m.Headers[name] = value
		if _, err := envelope.Parse(delivery(m)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s = %v: error %v", name, value, err)
		}
	}
}

// TestParseIsLenient: a message that went through another client or a broker's plugin is the same mail.
func TestParseIsLenient(t *testing.T) {
	sent := samples()["lmtp"]
	m := publishing(t, sent)
	maps.Copy(m.Headers, amqp091.Table{
		"x-delivery-count": int64(3), "x-death": []any{amqp091.Table{"reason": "delivery_limit"}}, "future": 1.5,
		"contract": int8(1), "size": int32(len(body)), "client_port": uint16(52144), "lhlo": []byte(sent.LMTP.LHLO), "truncated": nil,
	})
	got, err := envelope.Parse(delivery(m))
	if err != nil {
		t.Fatal(err)
	}
	if want := asWritten(sent); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// FuzzParse: no header table makes Parse panic, and what it makes of one can be published again.
func FuzzParse(f *testing.F) {
	f.Add([]byte("\x00\x00\x01"))
	f.Add([]byte("\x01\x07\x03\x02\x08\x05\xff\xfe"))
	f.Add([]byte("\x15\x07\x02\x01\x00\x01\x03abc\x14\x01\x05"))
	f.Fuzz(func(t *testing.T, data []byte) {
		headers := arbitraryTable(data)
		e, err := envelope.Parse(&amqp091.Delivery{MessageId: "m", Headers: headers})
		if err != nil {
			return
		}
		e.Size = int64(len(body))
		m, err := e.Publishing([]byte(body))
		if err != nil {
			return
		}
		if _, err := envelope.Parse(delivery(m)); err != nil {
			t.Errorf("%v makes an envelope that cannot be read again: %v", headers, err)
		}
	})
}

// arbitraryTable makes headers of known names out of data, with values of every type that amqp091 delivers.
func arbitraryTable(data []byte) amqp091.Table {
	names := []string{
		"base64", "truncated", "size", "sensor", "collector", "sha256", "mail_id", "received_at", "mta_received_at", "mail_from",
		"rcpt_to", "lhlo", "peer", "client_addr", "client_port", "queue_id", "mailbox", "imap_host", "folder", "junk", "uid",
		"uidvalidity", "flags", "internal_date", "contract", "unknown",
	}
	next := func() byte {
		if len(data) == 0 {
			return 0
		}
		b := data[0]
		data = data[1:]
		return b
	}
	var value func(depth int) any
	value = func(depth int) any {
		text := func() string {
			n := min(int(next()), len(data))
			taken := data[:n]
			data = data[n:]
			return string(taken)
		}
		switch next() % 16 {
		case 0:
			return nil
		case 1:
			return next()%2 == 1
		case 2:
			return int64(next()) - 1
		case 3:
			return int32(next()) - 1
		case 4:
			return uint32(next()) << 24
		case 5:
			return next()
		case 6:
			return float64(next())
		case 7:
			return time.Unix(int64(next()), 0)
		case 8:
			return amqp091.Decimal{Scale: next(), Value: int32(next())}
		case 9:
			return []byte(text())
		case 10:
			return amqp091.Table{text(): nil}
		case 11, 12:
			items := make([]any, 0, 4)
			for depth < 3 && len(items) < cap(items) && len(data) > 0 {
				items = append(items, value(depth+1))
			}
			return items
		case 13:
			return names[int(next())%len(names)]
		case 14:
			return "2026-11-23T16:18:10.042Z"
		}
		return text()
	}
	headers := amqp091.Table{"contract": int64(1)}
	for len(data) > 0 {
		name := names[int(next())%len(names)]
		headers[name] = value(0)
	}
	return headers
}
