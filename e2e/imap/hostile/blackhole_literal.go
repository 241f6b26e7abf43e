package hostile

import (
	"strconv"
)

func blackholeLiteral() Scenario {
	return Scenario{
		About: "Half a body comes, and then nothing more.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(1) {
					return false
				}
				s.begin(c, m, strconv.Itoa(len(m.Body)))
				s.SendBytes(m.Body[:len(m.Body)/2])
				return s.Hang()
			},
		},
		Want: Want{Silent: true},
	}
}
