package hostile

func http() Scenario {
	return Scenario{
		About: "A web server answers.",
		Script: Script{
			Greet: func(s *Session) bool {
				if !s.fault(2) {
					return false
				}
				s.Send("HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>")
				return s.Drop()
			},
		},
	}
}
