package hostile

import (
	"strconv"
)

func literalLow() Scenario {
	return Scenario{
		About: "A body is longer than announced, once.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(1) {
					return false
				}
				s.begin(c, m, strconv.Itoa(len(m.Body)-25))
				s.SendBytes(m.Body)
				s.Send(")\r\n")
				return true
			},
		},
	}
}
