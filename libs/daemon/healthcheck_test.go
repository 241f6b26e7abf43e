package daemon

import "testing"

func TestReadyURL(t *testing.T) {
	for addr, want := range map[string]string{
		":9602":           "http://127.0.0.1:9602/readyz",
		"0.0.0.0:9602":    "http://127.0.0.1:9602/readyz",
		"[::]:9602":       "http://[::1]:9602/readyz",
		"127.0.0.1:9602":  "http://127.0.0.1:9602/readyz",
		"192.0.2.7:9602":  "http://192.0.2.7:9602/readyz",
		"localhost:9602":  "http://localhost:9602/readyz",
		"[2001:db8::1]:1": "http://[2001:db8::1]:1/readyz",
	} {
		if got := readyURL(addr); got != want {
			t.Errorf("readyURL(%q) = %s, want %s", addr, got, want)
		}
	}
}
