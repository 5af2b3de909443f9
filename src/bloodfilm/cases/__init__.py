"""Cases: the fields of one film taken together, each physical cell once."""
