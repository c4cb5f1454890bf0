package testkit

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// STS is a stand-in of AWS's token service. Whoever signs with keys, or brings the
// web identity token, gets given; whoever signs with either hears whose they are.
func STS(keys aws.Credentials, webIdentity string, given aws.Credentials) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		w.Header().Set("Content-Type", "text/xml")
		form, ferr := url.ParseQuery(string(body))
		if err == nil {
			err = ferr
		}
		if r.URL.Query().Get("Action") == "GetCallerIdentity" && (signedBy(r, keys, body) == nil || signedBy(r, given, body) == nil) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Arn":"arn:aws:iam::1:user/bot"}}}`)
			return
		}
		action := form.Get("Action")
		if err == nil && (action != "AssumeRoleWithWebIdentity" || form.Get("WebIdentityToken") != webIdentity || webIdentity == "") {
			err = signedBy(r, keys, body)
		}
		if err != nil {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, xml.Header+"<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code><Message>%v</Message></Error></ErrorResponse>", err)
			return
		}
		fmt.Fprintf(w, `<%[1]sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%[1]sResult><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/s</Arn><AssumedRoleId>AROA:s</AssumedRoleId></AssumedRoleUser>`+
			`<Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
			action, given.AccessKeyID, given.SecretAccessKey, given.SessionToken)
	})
}
