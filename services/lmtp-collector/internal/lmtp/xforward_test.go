package lmtp_test

import (
	"strings"
	"testing"
	"time"

	"spamtraps.internal/libs/envelope"
	"spamtraps.internal/lmtp-collector/internal/lmtp"
)

// peers returns those that the texts name.
func peers(t *testing.T, texts ...string) []lmtp.Peers {
	t.Helper()
	list := make([]lmtp.Peers, len(texts))
	for i, text := range texts {
		if err := list[i].UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return list
}

func believing(t *testing.T, texts ...string) func(*lmtp.Config) {
	t.Helper()
	list := peers(t, texts...)
	return func(cfg *lmtp.Config) { cfg.XForwardFrom = list }
}

const (
	forward = "XFORWARD NAME=host.example ADDR=IPV6:2001:DB8:0::1 PORT=52144\r\n" +
		"XFORWARD PROTO=ESMTP HELO=[2001:db8::1] IDENT=4QhX2j0Zq5z1B SOURCE=REMOTE\r\n"
	simple = "MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n"
	// As Postfix writes it.
	trace = "Received: from host.example (host.example [IPv6:2001:db8::1])\r\n\tby mx.example (Postfix) with ESMTP id 4QhX2j0Zq5z1B\r\n" +
		"\tfor <b@y>; Sat, 21 Nov 2026 09:00:01 +0100 (CET)\r\n"
)

func TestXForwardReachesTheEnvelope(t *testing.T) {
	var publisher memory
	c := start(t, &publisher, believing(t, "127.0.0.0/8")).hello(t)
	c.say(forward+simple+trace+"Subject: s\r\n\r\n.\r\n", "250", "250", "250", "250", "354", "250")
	got := publisher.last(t)
	want := envelope.LMTP{
		MailFrom: "a@x", RcptTo: got.LMTP.RcptTo, LHLO: "mta.example", Peer: "127.0.0.1",
		ClientAddr: "2001:db8::1", ClientPort: 52144, ClientName: "host.example", ClientHELO: "[2001:db8::1]", ClientProto: "ESMTP",
		QueueID: "4QhX2j0Zq5z1B",
	}
	if l := got.LMTP; l.ClientAddr != want.ClientAddr || l.ClientPort != want.ClientPort || l.ClientName != want.ClientName ||
		l.ClientHELO != want.ClientHELO || l.ClientProto != want.ClientProto || l.QueueID != want.QueueID {
		t.Errorf("got %+v, want %+v", l, want)
	}
	if got.MessageID != envelope.LMTPMessageID(want.QueueID, got.SHA256, "a@x", []string{"b@y"}) || got.MailID != envelope.MailID(want.QueueID, got.SHA256) {
		t.Errorf("the ids do not derive from the queue id: %s, %s", got.MessageID, got.MailID)
	}
	if want := time.Date(2026, 11, 21, 8, 0, 1, 0, time.UTC); !got.MTAReceivedAt.Equal(want) {
		t.Errorf("mta_received_at is %s, want %s", got.MTAReceivedAt, want)
	}

	c.say(simple+trace+"\r\n.\r\n", "250", "250", "354", "250")
	if got := publisher.last(t); got.LMTP.QueueID != "" || got.LMTP.ClientAddr != "" || !got.MTAReceivedAt.IsZero() {
		t.Errorf("the next mail has what was said of the one before: %+v, %s", got.LMTP, got.MTAReceivedAt)
	}
	c.say(forward+"RSET\r\n"+simple+".\r\n", "250", "250", "250", "250", "250", "354", "250")
	if got := publisher.last(t); got.LMTP.QueueID != "" {
		t.Errorf("it outlived RSET: %+v", got.LMTP)
	}
	c.say("XFORWARD IDENT=1 COLOUR=red\r\n"+simple+".\r\n", "501 5.5.4", "250", "250", "354", "250")
	if got := publisher.last(t); got.LMTP.QueueID != "" {
		t.Errorf("a bad command was believed: %+v", got.LMTP)
	}
}

// A redelivery after a 250 that was lost has the same id; a mail of the same bytes under another queue id has another.
func TestMessageIDFollowsTheQueueID(t *testing.T) {
	var publisher memory
	c := start(t, &publisher, believing(t, "127.0.0.1")).hello(t)
	var ids []string
	for _, queueID := range []string{"1", "1", "2"} {
		c.say("XFORWARD IDENT="+queueID+"\r\n"+simple+"x\r\n.\r\n", "250", "250", "250", "354", "250")
		ids = append(ids, publisher.last(t).MessageID)
	}
	if ids[0] != ids[1] || ids[1] == ids[2] {
		t.Errorf("ids are %q", ids)
	}
}

func TestXForwardOfAStrangerIsNotTaken(t *testing.T) {
	for name, change := range map[string]func(*lmtp.Config){"by default": nil, "from elsewhere": believing(t, "192.0.2.0/24", "::1", "unix")} {
		t.Run(name, func(t *testing.T) {
			var publisher memory
			c := start(t, &publisher, change).dial(t)
			if offer := c.say("LHLO mta.example\r\n", "250"); strings.Contains(offer, "XFORWARD") {
				t.Errorf("it is offered: %q", offer)
			}
			c.say("XFORWARD IDENT=1 ADDR=192.0.2.1\r\n"+simple+".\r\n", "500", "250", "250", "354", "250")
			if got := publisher.last(t).LMTP; got.QueueID != "" || got.ClientAddr != "" {
				t.Errorf("it was believed: %+v", got)
			}
		})
	}
}

func TestMTAReceivedAt(t *testing.T) {
	const id = "4QhX2j0Zq5z1B"
	date := "; Sat, 21 Nov 2026 09:00:01 +0100"
	tests := []struct {
		name, body string
		want       bool
	}{
		{"Postfix's line", trace, true},
		{"below another header", "Return-Path: <a@x>\r\nX: y\r\n z\r\n" + trace, true},
		{"in another case, on one line", "RECEIVED : by mx with LMTP id " + id + date + "\r\n", true},
		{"another queue id", "Received: by mx id 4QhX2j0Zq5z1C" + date + "\r\n", false},
		{"part of a queue id", "Received: by mx id " + id + "0" + date + "\r\n", false},
		{"the queue id elsewhere", "Received: from " + id + " by mx id 1" + date + "\r\n", false},
		{"below one of another MTA", "Received: by other id 1" + date + "\r\n" + trace, false},
		{"no date", "Received: by mx id " + id + "\r\n", false},
		{"no date that can be read", "Received: by mx id " + id + "; yesterday\r\n", false},
		{"in the text", "Subject: s\r\n\r\n" + trace, false},
		{"not whole", strings.TrimSuffix(trace, "\r\n"), false},
		{"far below", strings.Repeat("X: y\r\n", 5000) + trace, false},
		{"no header", "\r\n", false},
		{"nothing", "", false},
	}
	var publisher memory
	c := start(t, &publisher, believing(t, "127.0.0.1")).hello(t)
	for _, test := range tests {
		end := "\r\nx\r\n.\r\n"
		if !strings.HasSuffix(test.body, "\r\n") {
			end = "\r\n.\r\n"
		}
		c.say("XFORWARD IDENT="+id+"\r\n"+simple+test.body+end, "250", "250", "250", "354", "250")
		if got := publisher.last(t).MTAReceivedAt; got.IsZero() == test.want {
			t.Errorf("%s: got %s", test.name, got)
		}
	}
}

func TestGatewayIsWarnedOfOnce(t *testing.T) {
	tests := []struct {
		name string
		addr func(mail int) string
		want int
	}{
		{"all from one private address", func(int) string { return "172.20.0.1" }, 1},
		{"all from one public address", func(int) string { return "192.0.2.1" }, 0},
		{"one of them from another", func(mail int) string { return map[bool]string{true: "10.0.0.2", false: "10.0.0.1"}[mail == 5] }, 0},
		{"none known", func(int) string { return "[UNAVAILABLE]" }, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := start(t, &memory{}, believing(t, "127.0.0.1"))
			c := r.hello(t)
			for mail := range 50 {
				if got := strings.Count(r.log.String(), "gateway"); mail < 20 && got != 0 {
					t.Errorf("the log warns after %d mails", mail)
				}
				c.say("XFORWARD ADDR="+test.addr(mail)+"\r\n"+simple+".\r\n", "250", "250", "250", "354", "250")
			}
			if got := strings.Count(r.log.String(), "gateway"); got != test.want {
				t.Errorf("the log warns %d times, want %d", got, test.want)
			}
		})
	}
}

func TestUnixPeersAreBelieved(t *testing.T) {
	for _, believed := range []bool{true, false} {
		texts := []string{"0.0.0.0/0", "::/0"}
		if believed {
			texts = append(texts, "unix")
		}
		list := peers(t, texts...)
		r := start(t, &memory{}, func(cfg *lmtp.Config) { cfg.Listen, cfg.XForwardFrom = "unix:"+t.TempDir()+"/lmtp", list })
		offer := r.dial(t).say("LHLO x\r\n", "250")
		if strings.Contains(offer, "XFORWARD") != believed {
			t.Errorf("believed %v: %q", believed, offer)
		}
	}
}

func TestPeersAsText(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "192.0.2.77/24": "192.0.2.0/24", "2001:DB8::/32": "2001:db8::/32", "::ffff:192.0.2.1": "192.0.2.1", "unix": "unix",
		"192.0.2.0/33": "", "::ffff:192.0.2.0/120": "", "mx.example": "", "192.0.2": "", "Unix": "",
	} {
		var p lmtp.Peers
		err := p.UnmarshalText([]byte(text))
		if (err == nil) != (want != "") {
			t.Errorf("%s: %v", text, err)
		}
		if err != nil {
			continue
		}
		if got, err := p.MarshalText(); string(got) != want || err != nil {
			t.Errorf("%s comes back as %s, %v", text, got, err)
		}
	}
}
