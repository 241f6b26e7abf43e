package hostile

import (
	"strconv"
)

func fetchFlood() Scenario {
	return Scenario{
		About: "200,000 changes of flags come before the answer to a FETCH.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.Bodies() || !s.fault(2) {
					return false
				}
				for i := range 200_000 {
					if !s.SendBytes([]byte("* " + strconv.Itoa(1+i%6) + " FETCH (FLAGS (\\Answered))\r\n")) {
						return true
					}
				}
				s.Honest(c)
				return true
			},
		},
	}
}
