package action

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"chaperone/policy"
)

// aws names requests of AWS's protocols: by X-Amz-Target, by the parameter Action,
// else by method and path.
func (k *compiled) aws(r *Request, q *policy.Question) error {
	targets := r.Header["X-Amz-Target"]
	if len(targets) > 1 {
		return fmt.Errorf("%w: X-Amz-Target is given twice", ErrAmbiguous)
	}
	if len(targets) == 1 {
		if !slices.Contains(k.Protocols, "aws-json") || r.Method != http.MethodPost || r.Path != "/" || r.RawQuery != "" {
			q.Action = unknown(k.Name, "no_route")
			return nil
		}
		return k.keyedBy(targets[0], r, q)
	}
	if r.Path != "/" || !slices.Contains(k.Protocols, "aws-query") {
		return k.rest(r, q)
	}
	name, why, err := queryAction(r)
	if why != "" || err != nil {
		q.Action = unknown(k.Name, why)
		return err
	}
	return k.keyedBy(name, r, q)
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
		why, err := k.arguments(r, &params)
		if err != nil {
			return err
		}
		if why != "" {
			q.Action = unknown(k.Name, why)
			return nil
		}
	}
	q.Action, q.Resource = op.action, k.resource(params)
	return nil
}

// queryAction reads the parameter Action of the query protocol, out of the query
// of a GET or the form of a POST. It returns why it is not known, if so.
func queryAction(r *Request) (name, why string, err error) {
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil {
		return "", "", fmt.Errorf("%w: the query cannot be read", ErrAmbiguous)
	}
	given := query["Action"]
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
		given = append(given, form["Action"]...)
	}
	switch len(given) {
	case 0:
		return "", "no_route", nil
	case 1:
		return given[0], "", nil
	}
	return "", "", fmt.Errorf("%w: Action is given twice", ErrAmbiguous)
}
