"""Identity: the fleet's certificate authority and the enrolment of nodes."""
