package hostile

import (
	"fmt"
)

func deleteScenario() Scenario {
	return Scenario{
		About: "An honest server with UIDPLUS, where another client has marked a mail as deleted.",
		Setup: func(s *Server) {
			s.Fill("INBOX", 1, 7)
			s.Flag("INBOX", 7, `\Seen \Deleted`)
		},
		Account: `after: delete`,
		Want: Want{Mails: []uint32{1, 2, 3, 4, 5, 6}, Faults: -1, Check: func(s *Server) error {
			if left := s.UIDs("INBOX"); len(left) != 1 || left[0] != 7 {
				return fmt.Errorf("INBOX holds %v, not 7 alone", left)
			}
			return nil
		}},
	}
}
