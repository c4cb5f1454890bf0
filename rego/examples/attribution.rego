# METADATA
# title: attribution
# description: What agents write says who wrote it for whom, so that the service's own log and pages show it.
package examples.attribution

_footers := {
	"github:issues/create": "/body",
	"github:issues/create-comment": "/body",
	"github:pulls/create": "/body",
	"slack:chat.postMessage": "/text",
}

_trailers := {"github:repos/create-or-update-file-contents": "/message", "github:git/create-commit": "/message"}

obligations.attribution contains {"as": "footer", "at": _footers[input.action.id]}

obligations.attribution contains {"as": "trailer", "at": _trailers[input.action.id]}
