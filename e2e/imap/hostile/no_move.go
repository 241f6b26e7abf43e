package hostile

import (
	"fmt"
)

func noMove() Scenario {
	return Scenario{
		About: "A server without MOVE, where another client has marked a mail as deleted.",
		Setup: func(s *Server) {
			s.Without("MOVE")
			s.Fill("INBOX", 1, 7)
			s.Flag("INBOX", 7, `\Seen \Deleted`)
			s.Add("Done", "", 1700000003)
		},
		Account: `after: move:Done`,
		Want: Want{Mails: []uint32{1, 2, 3, 4, 5, 6}, Faults: -1, Check: func(s *Server) error {
			if left := s.UIDs("INBOX"); len(left) != 1 || left[0] != 7 || len(s.UIDs("Done")) != 6 {
				return fmt.Errorf("INBOX holds %v, Done %v", left, s.UIDs("Done"))
			}
			return nil
		}},
	}
}
