package main

import (
	"slices"
	"testing"

	"chaperone/policy/action/describe"
)

// TestDocumentExamples takes values from parameters, and from addresses in answers.
func TestDocumentExamples(t *testing.T) {
	const doc = `{"openapi":"3.0.0","servers":[{"url":"https://api.example.com/v1"}],
		"components":{"parameters":{"kind":{"name":"kind","in":"query","required":true,"schema":{"enum":["big"]}}}},
		"paths":{
			"/things/{thing}":{"parameters":[{"name":"thing","in":"path","example":"a b"}],
				"get":{"operationId":"get","parameters":[{"$ref":"#/components/parameters/kind"}]},
				"patch":{"operationId":"change","requestBody":{"content":{"application/json":{"examples":{"one":{"value":{"x":1}}}}}}}},
			"/boxes/{box}":{"get":{"operationId":"box","responses":{"200":{"content":{"application/json":{"example":{"url":"/boxes/7"}}}}}}},
			"/bare/{id}":{"delete":{"operationId":"none"}}}}`
	w := &work{shows: true, cited: []string{"npm:doc@1"}}
	o := describe.Options{Service: "x", Adjust: func(*describe.Operation) {}}
	if err := w.read("doc.json", []byte(doc), o); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range w.examples {
		got = append(got, e.method+" "+e.target+" "+e.body+" "+e.name)
	}
	slices.Sort(got)
	want := []string{"GET /v1/boxes/7  box", "GET /v1/things/a%20b?kind=big  get", `PATCH /v1/things/a%20b {"x":1} change`}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestAWSExamples writes the inputs of AWS's examples by protocol.
func TestAWSExamples(t *testing.T) {
	shapes := map[string]awsShape{}
	m := &awsModel{Shapes: shapes}
	m.Metadata.Protocol, m.Metadata.APIVersion = "query", "2010-05-08"
	m.Operations = map[string]struct {
		HTTP struct {
			Method string
			URI    string `json:"requestUri"`
		}
		Input struct{ Shape string }
	}{"Tag": {}}
	e, ok := m.request("Tag", map[string]any{"Name": "a&b", "Tags": []any{map[string]any{"Key": "k"}}})
	if want := "Action=Tag&Name=a%26b&Tags.member.1.Key=k&Version=2010-05-08"; !ok || e.body != want {
		t.Errorf("%v %q, want %q", ok, e.body, want)
	}
	if _, ok := m.request("Other", nil); ok {
		t.Error("an operation that is not there")
	}
}
