package action

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// disguises change a request so that a reader who is less strict, or reads elsewhere,
// takes it for another.
var disguises = map[string]func(r *Request){
	"a needless escape": func(r *Request) {
		if i := strings.IndexFunc(r.Path, func(c rune) bool { return 'a' <= c && c <= 'z' }); i > 0 {
			r.Path = r.Path[:i] + "%" + string("0123456789abcdef"[r.Path[i]>>4]) + string("0123456789abcdef"[r.Path[i]&15]) + r.Path[i+1:]
			return
		}
		r.Path += "%61"
	},
	"a dot segment":          func(r *Request) { r.Path = "/." + r.Path },
	"two slashes":            func(r *Request) { r.Path = "/" + r.Path },
	"a way back":             func(r *Request) { r.Path = "/x/.." + r.Path },
	"a matrix parameter":     func(r *Request) { r.Path += ";x=y" },
	"a double encoding":      func(r *Request) { r.Path += "%252e" },
	"a field for the method": func(r *Request) { r.Header.Set("X-HTTP-Method-Override", "DELETE") },
	"a field of CGI":         func(r *Request) { r.Header["X_http_method_override"] = []string{"DELETE"} },
	"a parameter":            func(r *Request) { r.RawQuery = strings.Trim(r.RawQuery+"&_method=DELETE", "&") },
	"an escaped parameter":   func(r *Request) { r.RawQuery = strings.Trim(r.RawQuery+"&%5Fmethod=DELETE", "&") },
	"two types": func(r *Request) {
		r.Header["Content-Type"] = []string{"application/json", "application/x-www-form-urlencoded"}
	},
	"a broken query": func(r *Request) { r.RawQuery += "&a=%zz" },
	"a semicolon":    func(r *Request) { r.RawQuery += ";a=b" },
}

// TestDisguises puts two of the disguises, in turn, on an example of every operation of
// every catalogue: none may keep a name.
func TestDisguises(t *testing.T) {
	c := shippedCatalogue(t)
	names := sorted(disguises)
	for _, s := range c.Services() {
		rows := s.Rows()
		for i := range rows {
			for j := range 2 {
				name := names[(2*i+j)%len(names)]
				r := example(s, &rows[i])
				disguises[name](r)
				if got := outcome(c, r); !strings.HasPrefix(got[0], "unclear: ") {
					t.Errorf("%s %s%s (%s) with %s: %s", rows[i].Method, rows[i].Path, rows[i].Key, rows[i].Action, name, strings.Join(got, ", "))
				}
			}
		}
	}
}

// TestNearMisses gives an example of every operation two other methods, in turn, and a
// form that asks for another: it may not keep its name.
func TestNearMisses(t *testing.T) {
	c := shippedCatalogue(t)
	methods := []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get"}
	for _, s := range c.Services() {
		rows := s.Rows()
		taken := map[string]bool{}
		for i := range rows {
			taken[rows[i].Action+" "+rows[i].Method] = true
		}
		for i := range rows {
			row := &rows[i]
			if alsoForm.MatchString(row.Key) {
				continue // it comes with others
			}
			for j := range 2 {
				method := methods[(2*i+j)%len(methods)]
				r := example(s, row)
				r.Method = method
				got := outcome(c, r)
				id, _, _ := strings.Cut(got[0], " ")
				if method == row.Method || row.Key == "" && row.Method == "*" || row.Key != "" && method == "POST" || row.Key != "" && method == "GET" {
					continue
				}
				if id == row.Action && !taken[row.Action+" "+method] {
					t.Errorf("%s %s%s: %s by %s", row.Method, row.Path, row.Key, strings.Join(got, ", "), method)
				}
			}
			r := example(s, row)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Body = []byte("_method=DELETE")
			if got := outcome(c, r); r.Method == http.MethodPost && slices.ContainsFunc(rows, func(o Row) bool { return o.Path == row.Path && o.Method != row.Method && o.Host == row.Host }) && strings.Contains(got[0], ":") && !strings.HasPrefix(got[0], "unclear") {
				t.Errorf("%s %s%s: %s with another method in its form", row.Method, row.Path, row.Key, strings.Join(got, ", "))
			}
		}
	}
}

// TestCaseOfLiterals writes a literal segment of an example of every operation in the
// other case: to a service that folds case it is the operation still, so it may have no
// other name.
func TestCaseOfLiterals(t *testing.T) {
	c := shippedCatalogue(t)
	for _, s := range c.Services() {
		rows := s.Rows()
		for i := range rows {
			template := strings.Split(strings.TrimPrefix(rows[i].Path, "/"), "/")
			for at, literal := range template {
				r := example(s, &rows[i])
				segments := strings.Split(r.Path, "/")
				upper := strings.ToUpper(literal)
				if strings.Contains(literal, "{") || upper == literal || len(segments) != len(template)+1 || segments[at+1] != literal {
					continue
				}
				segments[at+1] = upper
				r.Path = strings.Join(segments, "/")
				if got := outcome(c, r); !strings.HasPrefix(got[0], "?") && !strings.HasPrefix(got[0], "unclear: ") {
					t.Errorf("%s %s (%s) as %s: %s", rows[i].Method, rows[i].Path, rows[i].Action, r.Path, strings.Join(got, ", "))
				}
			}
		}
	}
}
