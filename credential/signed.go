package credential

import "errors"

// Kinds whose secret signs requests and is never sent.
const (
	KindAWS     = "aws"
	KindAWSRole = "aws-role"
	KindOAuth1  = "oauth1"
	KindAWSWeb  = "aws-web-identity"
)

var (
	// ErrSignature is wrapped when a request is signed, and not with the stand-in of
	// the secret that belongs to its handle.
	ErrSignature = errors.New("the request is not signed with the handle's secret")
	// ErrSignatureTime is wrapped when a signature is not of now.
	ErrSignatureTime = errors.New("the signature is too old, or of the future")
)

// signedKinds are those whose secret signs requests.
func signedKinds() []Kind {
	const pair = `{"access_key_id": …, "secret_access_key": …, "session_token": …}, also as AWS's credential_process prints it`
	return []Kind{
		{Name: KindAWS, Doc: "AWS Signature Version 4: the agent's own signature is verified and made anew", Material: pair, place: onlyPlace(KindAWS), open: openAWS},
		{Name: KindAWSRole, Doc: "AWS, with keys of a role that are made out to the session: its instance, its person and its scope", Material: pair,
			Settings: []Setting{{"role_arn", "the role, arn:aws:iam::…:role/…", true}, {"region", "of the token service, us-east-1 when left out", false}, {"external_id", "where the role wants one", false}, {"duration", "of the keys, such as 15m or 1h (15m)", false}, {"tags", "session tags that the keys carry, of agent, human, instance and session, with commas between; the role's trust policy must allow sts:TagSession", false}},
			place:    onlyPlace(KindAWS), open: openAWSRole},
		{Name: KindAWSWeb, Doc: "AWS, with keys of a role for a workload's own token (AssumeRoleWithWebIdentity), made out to the session as those of aws-role are, but for the person",
			Material: "the token, a JWT; best left at its source, as --source file:/var/run/secrets/…/token",
			Settings: []Setting{{"role_arn", "the role, arn:aws:iam::…:role/…", true}, {"region", "of the token service, us-east-1 when left out", false}, {"duration", "of the keys, such as 15m or 1h (15m)", false}},
			place:    onlyPlace(KindAWS), open: openAWSWeb},
		{Name: KindOAuth1, Doc: "OAuth 1.0a (RFC 5849): the handle stands where the consumer key or the token does, and the signature is made anew",
			Material: `{"consumer_key": …, "consumer_secret": …, "token": …, "token_secret": …}`,
			Settings: []Setting{{"signature_method", "HMAC-SHA1 or HMAC-SHA256 (HMAC-SHA1)", false}}, place: onlyPlace(KindOAuth1), open: openOAuth1},
		{Name: KindHMAC, Doc: "a signature of the vendor's own scheme, which the settings declare", Material: `{"key_id": …, "secret": …}`, Settings: hmacSettings, place: hmacPlace, open: openHMAC},
		{Name: KindHTTPSignature, Doc: "HTTP Message Signatures (RFC 9421), of the components that the settings declare; a client that signs by itself has the handle for its keyid",
			Material: `the private key in PEM, with its id in the setting key_id; or {"key_id": …, "private_key": … or for hmac-sha256 "secret": …, "token": what stands where the handle stood, if anything}`,
			Settings: httpSignatureSettings, place: httpSignaturePlace, open: openHTTPSignature},
		{Name: KindMTLS, Doc: "a client certificate, shown on every connection of the session to the service; clients need no handle for it",
			Material: "the certificate, its chain and its private key in PEM", place: mintedPlace, open: openMTLS},
	}
}

// onlyPlace is the place of a kind whose handle is a part of a signature.
func onlyPlace(kind string) func(*Credential) (Place, error) {
	return func(c *Credential) (Place, error) {
		if _, err := anyPlace(c); err != nil {
			return Place{}, err
		}
		return Place{kind: kind}, nil
	}
}
