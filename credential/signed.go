package credential

// signed is the agent's own signature over a request.
type signed struct{}

// signedKinds are those whose secret signs requests and is never sent.
func signedKinds() []Kind { return nil }

// Kinds whose secret signs.
const (
	KindAWS    = "aws"
	KindOAuth1 = "oauth1"
)
