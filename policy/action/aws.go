package action

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"chaperone/policy"
)

// aws names requests of AWS's protocols: by X-Amz-Target, by the parameter Action, by
// the path of Smithy's RPC v2, else by method and path.
func (k *compiled) aws(r *Request, q *policy.Question) error {
	if err := k.checkScope(r); err != nil {
		return err
	}
	targets := r.Header["X-Amz-Target"]
	if len(targets) > 1 {
		return fmt.Errorf("%w: X-Amz-Target is given twice", ErrAmbiguous)
	}
	speaks := func(protocol string) bool { return slices.Contains(k.Protocols, protocol) }
	name, rpc := strings.CutPrefix(r.Path, "/service/")
	switch {
	case rpc && speaks("aws-cbor"):
		return k.smithy(name, r, q)
	case len(r.Header["Smithy-Protocol"]) > 0:
		q.Action = unknown(k.Name, "no_route") // it says that the path names the operation
		return nil
	case len(targets) == 1:
		if !speaks("aws-json") || r.Method != http.MethodPost || r.Path != "/" || r.RawQuery != "" || formOf(r.Header) != jsonForm {
			q.Action = unknown(k.Name, "no_route")
			return nil
		}
		return k.keyedBy(targets[0], r, q)
	case r.Path != "/" || !speaks("aws-query"):
		return k.rest(r, q)
	}
	name, why, err := queryAction(r)
	if why != "" || err != nil {
		q.Action = unknown(k.Name, why)
		return err
	}
	return k.keyedBy(name, r, q)
}

// smithy names a request of Smithy's RPC v2 by /service/NAME/operation/NAME. An
// operation has the key that it has in X-Amz-Target, or as Action.
func (k *compiled) smithy(path string, r *Request, q *policy.Question) error {
	service, name, ok := strings.Cut(path, "/operation/")
	protocols := r.Header["Smithy-Protocol"]
	if !ok || r.Method != http.MethodPost || r.RawQuery != "" || len(r.Header["X-Amz-Target"]) > 0 || len(protocols) != 1 || protocols[0] != "rpc-v2-cbor" {
		q.Action = unknown(k.Name, "no_route")
		return nil
	}
	key := service + "." + name
	if k.keyed[key] == nil && slices.Contains(k.Protocols, "aws-query") {
		key = name
	}
	return k.keyedBy(key, r, q)
}

// keyedBy names the action by the name that the protocol gave, on the resource that
// the service's arguments say.
func (k *compiled) keyedBy(name string, r *Request, q *policy.Question) error {
	op := k.keyed[name]
	if op == nil {
		q.Action = unknown(k.Name, "no_route")
		return nil
	}
	var params []policy.Param
	if len(k.Arguments) > 0 {
		why, err := k.arguments(r, op, &params)
		if err != nil {
			return err
		}
		if why != "" {
			q.Action = unknown(k.Name, why)
			return nil
		}
	}
	q.Action, q.Resource = op.action, k.resource(params)
	if len(params) < 2 {
		k.with(r, q)
		return nil
	}
	// Each thing that it is said to be on must be allowed.
	acts := make([]policy.Act, 0, len(params))
	slices.SortStableFunc(params, func(a, b policy.Param) int { return strings.Compare(a.Name+"="+a.Value, b.Name+"="+b.Value) })
	for _, p := range slices.Compact(params) {
		acts = append(acts, policy.Act{Action: op.action, Resource: k.resource([]policy.Param{p})})
	}
	k.several(acts, "", q)
	k.with(r, q)
	return nil
}

// queryAction reads the parameter Action of the query protocol, out of the query
// of a GET or the form of a POST. It returns why it is not known, if so.
func queryAction(r *Request) (name, why string, err error) {
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return "", "", fmt.Errorf("%w: the query cannot be read", ErrAmbiguous)
	}
	all := []url.Values{query}
	absent := r.BodyState == policy.BodyAbsent || r.BodyState == ""
	switch {
	case r.Method == http.MethodGet && absent:
	case r.Method != http.MethodPost || formOf(r.Header) != urlForm:
		return "", "no_route", nil
	case r.BodyState != policy.BodyParsed && r.BodyState != policy.BodyUnparsable && !absent:
		return "", "body", nil
	default:
		form, err := parseForm(string(r.Body))
		if err != nil {
			return "", "", fmt.Errorf("%w: the form cannot be read", ErrAmbiguous)
		}
		all = append(all, form)
	}
	var given []string
	spelled := false
	for _, values := range all {
		for key, v := range values {
			switch {
			case key == "Action":
				given = append(given, v...)
			case fold(looseName(key)) == "action":
				spelled = true
			}
		}
	}
	switch {
	case len(given) == 0:
		return "", "no_route", nil
	case spelled:
		return "", "", fmt.Errorf("%w: Action is given in another spelling", ErrAmbiguous)
	case len(given) == 1:
		return given[0], "", nil
	}
	return "", "", fmt.Errorf("%w: Action is given twice", ErrAmbiguous)
}

// regionOfHost is the region in the name of a regional endpoint.
var regionOfHost = regexp.MustCompile(`(?:^|\.)([a-z]{2}(?:-[a-z]+)+-[0-9]+)\.(?:amazonaws\.com(?:\.cn)?|api\.aws)$`)

// checkScope compares the credential scope of an AWS signature, version 4, with the
// service and region of the host ("Credential=KEY/DATE/REGION/SERVICE/aws4_request"): a
// signature for another is the mark of a request that is meant to be used elsewhere.
func (k *compiled) checkScope(r *Request) error {
	if k.Signing == "" {
		return nil
	}
	credential, signed, err := signedWith(r)
	if !signed || err != nil {
		return err
	}
	words := strings.Split(credential, "/")
	n := len(words)
	if n < 4 || words[n-1] != "aws4_request" {
		return fmt.Errorf("%w: the credential scope of the signature cannot be read", ErrAmbiguous)
	}
	if words[n-2] != k.Signing {
		return fmt.Errorf("%w: the signature is for another service than %s", ErrAmbiguous, k.Signing)
	}
	host := regionOfHost.FindStringSubmatch(r.Host)
	if host != nil && n >= 5 && words[n-3] != host[1] {
		return fmt.Errorf("%w: the signature is for another region than %s", ErrAmbiguous, host[1])
	}
	return nil
}

// signedWith returns the Credential of a signature, out of the field or the query.
func signedWith(r *Request) (credential string, signed bool, err error) {
	for _, v := range r.Header["Authorization"] {
		if !strings.HasPrefix(v, "AWS4-") {
			continue
		}
		_, rest, ok := strings.Cut(v, "Credential=")
		if signed || !ok || strings.Contains(rest, "Credential=") {
			return "", true, fmt.Errorf("%w: a signature that cannot be read in one way", ErrAmbiguous)
		}
		credential, _, _ = strings.Cut(rest, ",")
		credential, signed = strings.TrimSpace(credential), true
	}
	if !mentions(r.RawQuery, "credential") {
		return credential, signed, nil
	}
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return "", true, fmt.Errorf("%w: the query cannot be read", ErrAmbiguous)
	}
	list := query["X-Amz-Credential"]
	if len(list) > 1 || len(list) > 0 && signed {
		return "", true, fmt.Errorf("%w: signed twice", ErrAmbiguous)
	}
	if len(list) == 1 {
		return list[0], true, nil
	}
	return credential, signed, nil
}
