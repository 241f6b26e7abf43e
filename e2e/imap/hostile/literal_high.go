package hostile

import (
	"strconv"
)

func literalHigh() Scenario {
	return Scenario{
		About: "A body is shorter than announced, so that the next answer seems to be part of it.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(1) {
					return false
				}
				s.begin(c, m, strconv.Itoa(len(m.Body)+30))
				s.SendBytes(m.Body)
				s.Send(")\r\n")
				return true
			},
		},
	}
}
