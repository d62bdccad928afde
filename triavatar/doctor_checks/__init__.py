"""What ``triavatar doctor`` looks at; each module finds one family of faults."""
