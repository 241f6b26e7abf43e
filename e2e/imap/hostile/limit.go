package hostile

import "time"

func limitScenario() Scenario {
	return Scenario{
		About: "A SELECT is refused for coming too often.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "SELECT" {
					return false
				}
				s.always()
				s.No(c, "[LIMIT] slow down")
				return true
			},
		},
		Want: Want{Nothing: true, Apart: 55 * time.Second, Log: "slow down"},
	}
}
