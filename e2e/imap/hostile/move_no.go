package hostile

import (
	"fmt"
)

func moveNo() Scenario {
	return Scenario{
		About: "MOVE is refused.",
		Setup: func(s *Server) {
			s.Fill("INBOX", 1, 6)
			s.Add("Done", "", 1700000003)
		},
		Account: `after: move:Done`,
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "UID MOVE" {
					return false
				}
				s.always()
				s.No(c, "[OVERQUOTA] the mailbox is full")
				return true
			},
		},
		Want: Want{Unmarked: true, Check: func(s *Server) error {
			if left := s.UIDs("INBOX"); len(left) != 6 || s.Asked("(UID )?EXPUNGE") > 0 {
				return fmt.Errorf("INBOX holds %v", left)
			}
			return nil
		}},
	}
}
