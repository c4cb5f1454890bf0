package main

import (
	"regexp"
	"strings"

	"chaperone/policy"
	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

// slackCall is a method in the SDK.
var slackCall = regexp.MustCompile(`bindApiCall(?:WithOptionalArgument)?\(this, '([A-Za-z0-9_.]+)'`)

func slack(w *work) error {
	w.Service = action.Service{
		Name: "slack", License: "MIT", Hosts: []string{"slack.com", "www.slack.com"}, Env: []string{"SLACK_BOT_TOKEN", "SLACK_TOKEN"},
		Places: []string{"bearer"}, Handle: "xoxb-", Refusal: "slack", Arguments: []string{"channel", "channel_id", "user", "file"}, BodyCredential: "token",
		Resources: []action.ResourceRule{{Type: "channel", ID: "{channel}"}, {Type: "channel", ID: "{channel_id}"}, {Type: "file", ID: "{file}"}, {Type: "user", ID: "{user}"}},
	}
	b, err := w.npmFile(slackWebAPI, "dist/methods.js")
	if err != nil {
		return err
	}
	names := describe.Set("files.upload files.completeUploadExternal files.getUploadURLExternal")
	for _, m := range slackCall.FindAllSubmatch(b, -1) {
		names[string(m[1])] = true
	}
	for _, name := range sorted(names) {
		op := &describe.Operation{Method: "*", Name: name, Access: slackAccess(name)} // Slack takes GET and POST alike
		w.adjust("", op)
		put(&w.Service, "/api/"+name, op.Method, strings.Join(append([]string{name, string(op.Access)}, op.Marks...), " "))
	}
	return nil
}

// slackAccess tells a level by Slack's own words for its methods.
func slackAccess(name string) policy.Access {
	last := name[strings.LastIndexByte(name, '.')+1:]
	reads := describe.Set("info get getPermalink history replies identity test lookupByEmail list search messages files all conversations members getPresence")
	admin := false
	for _, family := range []string{"admin.", "apps.", "oauth.", "openid.", "tooling."} {
		admin = admin || strings.HasPrefix(name, family)
	}
	switch {
	case admin || name == "auth.revoke" || name == "conversations.invite" || name == "conversations.inviteShared" || name == "conversations.kick",
		strings.HasPrefix(name, "usergroups.") && !reads[last]:
		return policy.AccessAdmin
	case last == "list" || strings.HasPrefix(name, "search."):
		return policy.AccessList
	case reads[last]:
		return policy.AccessRead
	case describe.Set("delete remove archive close end revoke clear")[describe.Words(last)[0]]:
		return policy.AccessDelete
	}
	return policy.AccessWrite
}
