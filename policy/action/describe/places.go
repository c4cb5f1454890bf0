package describe

import (
	"slices"
	"strings"
)

// securityScheme is how a description says that a credential is sent.
type securityScheme struct{ Type, Scheme, In, Name string }

// places takes over where the service takes credentials, as far as that is said.
func (d *Draft) places(schemes map[string]securityScheme) {
	for _, name := range sorted(schemes) {
		s, place := schemes[name], ""
		switch kind := strings.ToLower(s.Type); {
		case kind == "http" && strings.EqualFold(s.Scheme, "basic"), kind == "basic":
			place = "basic"
		case kind == "http" && strings.EqualFold(s.Scheme, "bearer"), kind == "oauth2", kind == "openidconnect":
			place = "bearer"
		case kind == "apikey" && s.In == "header" && strings.EqualFold(s.Name, "Authorization"):
			place = "bearer"
		case kind == "apikey" && (s.In == "header" || s.In == "query" || s.In == "cookie") && s.Name != "":
			place = s.In + ":" + s.Name
		default:
			d.note("the security scheme %q (%s) is not one that is known: mend places:", name, s.Type)
		}
		if place != "" && !slices.Contains(d.Service.Places, place) {
			d.Service.Places = append(d.Service.Places, place)
		}
	}
}

// head finishes what a service says of itself, for a file that is to be reviewed.
func (d *Draft) head(o *Options) {
	if len(o.Hosts) > 0 {
		d.Service.Hosts = o.Hosts
		d.Notes = slices.DeleteFunc(d.Notes, func(n string) bool { return strings.HasSuffix(n, "give --host") })
	}
	if len(d.Service.Places) == 0 {
		d.note("where the service takes credentials is not said: add places: (bearer, basic, header:NAME, query:KEY)")
	}
	if len(d.Service.Env) == 0 && d.Service.Name != "" {
		d.Service.Env = []string{strings.ToUpper(strings.ReplaceAll(d.Service.Name, "-", "_")) + "_TOKEN"}
	}
}

// named gives the service the description's own name, where the file's says nothing.
func (d *Draft) named(o *Options, name string) {
	generic := Set("openapi swagger api api-2 spec schema service discovery description")
	if o.Service == "" && generic[d.Service.Name] && plainName(name) != "" {
		d.Service.Name = plainName(name)
	}
}
