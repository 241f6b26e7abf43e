package hostile

import (
	"strconv"
)

func literalCut() Scenario {
	return Scenario{
		About: "The connection ends in the middle of a body, twice.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(2) {
					return false
				}
				s.begin(c, m, strconv.Itoa(len(m.Body)))
				s.SendBytes(m.Body[:len(m.Body)/2])
				return s.Drop()
			},
		},
	}
}
