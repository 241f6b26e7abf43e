package hostile

import (
	"strconv"
)

func literalCutAtEnd() Scenario {
	return Scenario{
		About: "The connection ends right after the last byte of a body, before the answer is complete.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(2) {
					return false
				}
				s.begin(c, m, strconv.Itoa(len(m.Body)))
				s.SendBytes(m.Body)
				return s.Drop()
			},
		},
	}
}
