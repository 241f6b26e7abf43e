package hostile

import "time"

func throttleScenario() Scenario {
	return Scenario{
		About: "A FETCH is refused for coming too often.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.Bodies() {
					return false
				}
				s.always()
				s.No(c, "[THROTTLED] slow down")
				return true
			},
		},
		Want: Want{Nothing: true, Apart: 55 * time.Second, Log: "slow down"},
	}
}
