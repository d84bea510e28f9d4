"""The stand-in for every destination that is not Insider: it takes whatever comes."""
