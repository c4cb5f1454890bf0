package oblige

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func TestApplyForm(t *testing.T) {
	set := func(at, v string) Edit { return Edit{Set: map[string]jsontext.Value{at: jsontext.Value(v)}} }
	text := func(at, more string) Edit { return Edit{append: map[string]string{at: more}} }
	for name, tc := range map[string]struct {
		edit     Edit
		in, want string // empty want: an error
	}{
		"nothing there":        {Edit{Remove: []string{"/x"}, Mask: []string{"/y"}}, "a=1&b=%7e", "a=1&b=%7e"},
		"removed":              {Edit{Remove: []string{"/admin"}}, "a=1&admin=1&b=+2&%61dmin=2", "a=1&b=+2"},
		"with what is below":   {Edit{Remove: []string{"/admin"}}, "admin[]=1&admin%5Bx%5D=2&administrator=3", "administrator=3"},
		"in other spelling":    {Edit{Remove: []string{"/admin"}}, "Admin=1&b=2", "b=2"},
		"set elsewhere":        {set("/draft", `true`), "DRAFT=false", ""},
		"one part of it":       {Edit{Remove: []string{"/metadata/team"}}, "metadata[team]=a&metadata[x]=b", "metadata[x]=b"},
		"any part of it":       {Edit{Mask: []string{"/items/*/price"}}, "items[0][price]=5&items[1][price]=6&items[1][id]=7", "items[0][price]=%5Bmasked%5D&items[1][price]=%5Bmasked%5D&items[1][id]=7"},
		"without a value":      {Edit{Mask: []string{"/a"}}, "a&b=", "a=%5Bmasked%5D&b="},
		"set anew":             {set("/draft", `true`), "a=1", "a=1&draft=true"},
		"set below":            {set("/metadata/agent", `"bot"`), "a=1", "a=1&metadata%5Bagent%5D=bot"},
		"set over":             {set("/a", `"x y&z"`), "a=1&b=2&a=3", "a=x+y%26z&b=2"},
		"set over what is so":  {set("/a", `1`), "a[]=1&b=2", "a=1&b=2"},
		"set to a list":        {set("/a", `[1]`), "a=1", ""},
		"set to null":          {set("/a", `null`), "a=1", ""},
		"signed":               {text("/text", "\n\nAgent: bot"), "text=hi+you&x=1", "text=hi+you%0A%0AAgent%3A+bot&x=1"},
		"signed anew":          {text("/text", "\n\nAgent: bot"), "x=1", "x=1&text=Agent%3A+bot"},
		"signed twice":         {text("/text", "z"), "text=a&text=b", ""},
		"labelled":             {Edit{labels: map[string]string{"/labels": "agent:bot"}}, "labels=a", ""},
		"odd encoding":         {Edit{Remove: []string{"/x"}}, "a=%zz", ""},
		"odd name":             {Edit{Remove: []string{"/admin"}}, "admin]=1", ""},
		"name with a space":    {Edit{Remove: []string{"/admin"}}, "+admin=1", ""},
		"a dot, as PHP has it": {Edit{Remove: []string{"/is_admin"}}, "is.admin=1", ""},
		"a space inside":       {Edit{Mask: []string{"/is_admin"}}, "is+admin=1", ""},
		"a dot in what is set": {set("/is_admin", `false`), "is.admin[x]=1", ""},
		"a dot elsewhere":      {Edit{Remove: []string{"/is_admin"}}, "a.b=1&is_admin=1&x[is.admin]=2", "a.b=1&x[is.admin]=2"},
		"nested deep":          {Edit{Remove: []string{"/x"}}, "b" + strings.Repeat("[x]", 100), ""},
		"set over many":        {set("/a", `1`), strings.Repeat("a=2&b&", 1000) + "a[x]=3", "a=1&b" + strings.Repeat("&b", 999)},
		"semicolon":            {Edit{Remove: []string{"/admin"}}, "a=1;admin=2", ""},
		"name that is open":    {Edit{Remove: []string{"/admin"}}, "admin[x=1", ""},
		"name that goes on":    {Edit{Remove: []string{"/admin"}}, "admin[x]y=1", ""},
		"name that is a NUL's": {Edit{Remove: []string{"/admin"}}, "admin%00=1", ""},
	} {
		got, err := tc.edit.ApplyForm([]byte(tc.in))
		if (err != nil) != (tc.want == "") || err == nil && string(got) != tc.want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, tc.want)
		}
		if err != nil && !errors.Is(err, errFormFields) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzForm: what was taken out of a form is not in it, however it was spelled, and
// what stays reads as before.
func FuzzForm(f *testing.F) {
	f.Add([]byte("a=1&admin=2&b[c]=3"))
	f.Add([]byte("%61dmin[]=1&x"))
	f.Fuzz(func(t *testing.T, form []byte) {
		e := Edit{Remove: []string{"/admin"}}
		out, err := e.ApplyForm(form)
		if err != nil {
			return
		}
		before, err := url.ParseQuery(string(form))
		if err != nil {
			return // a semicolon, which is no separator
		}
		after, err := url.ParseQuery(string(out))
		if err != nil {
			t.Fatalf("%q became %q: %v", form, out, err)
		}
		for key, values := range before {
			gone := strings.EqualFold(key, "admin") || len(key) > 5 && strings.EqualFold(key[:6], "admin[")
			if got := after[key]; gone && got != nil || !gone && len(got) != len(values) {
				t.Fatalf("%q became %q", form, out)
			}
		}
	})
}
