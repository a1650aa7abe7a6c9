"""The protocols, each in the words of its RFC: what to send, and which answers are believed."""
