package hostile

import (
	"strconv"
)

func literalHighLast() Scenario {
	return Scenario{
		About: "The last body is shorter than announced: the server is silent where bytes should come.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 6 || !s.fault(1) {
					return false
				}
				s.begin(c, m, strconv.Itoa(len(m.Body)+3000))
				s.SendBytes(m.Body)
				s.Send(")\r\n")
				return true
			},
		},
		Want: Want{Silent: true},
	}
}
