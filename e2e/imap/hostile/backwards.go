package hostile

import (
	"slices"
	"strings"
)

func backwards() Scenario {
	return Scenario{
		About: "Mails come in the opposite order.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.Bodies() {
					return false
				}
				set, _, _ := strings.Cut(c.Args, " ")
				picked, err := s.picked(set)
				if err != nil {
					return false
				}
				s.always()
				slices.Reverse(picked)
				for _, uid := range picked {
					if m, there := s.mail(uid, true); there {
						s.SendMail(c, m)
					}
				}
				s.OK(c, "done")
				return true
			},
		},
	}
}
