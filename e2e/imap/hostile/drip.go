package hostile

import (
	"strconv"
	"time"
)

func drip() Scenario {
	return Scenario{
		About: "A body comes byte by byte, one in half a second.",
		Setup: func(s *Server) {
			s.Fill("INBOX", 1, 6)
			s.Size("INBOX", 3, 5000)
		},
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(1) {
					return false
				}
				s.begin(c, m, strconv.Itoa(len(m.Body)))
				for _, b := range m.Body {
					if !s.SendBytes([]byte{b}) || !s.Flush() || !s.Pause(500*time.Millisecond) {
						return true
					}
				}
				s.Send(")\r\n")
				return true
			},
		},
		Want: Want{Silent: true},
	}
}
