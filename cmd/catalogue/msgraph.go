package main

import (
	"regexp"
	"slices"
	"strings"

	"chaperone/policy/action"
	"chaperone/policy/action/describe"
)

// graphAreas are the beginnings of the paths that are kept of Microsoft Graph: mail,
// calendar, files, users, groups and teams.
var graphAreas = regexp.MustCompile(`^/(me|users/\{[^}]*\}|groups/\{[^}]*\})?(/(` + strings.Join([]string{
	`messages`, `mailFolders`, `sendMail`, `inferenceClassification`, `outlook`, `mailboxSettings`, `getMailTips`,
	`calendar`, `calendars`, `calendarGroups`, `calendarView`, `events`, `findMeetingTimes`, `reminderView.*`, `places`,
	`drive`, `drives`, `contacts`, `contactFolders`, `people`, `photo`, `photos`, `manager`, `directReports`, `presence`,
	`memberOf`, `transitiveMemberOf`, `members`, `owners`, `transitiveMembers`, `joinedTeams`, `chats`, `onlineMeetings`, `todo`,
	`teamwork`, `followedSites`, `licenseDetails`, `appRoleAssignments`, `oauth2PermissionGrants`, `authentication`,
	`assignLicense`, `changePassword`, `revokeSignInSessions`, `checkMember.*`, `getMember.*`, `conversations`, `threads`, `team`,
}, `|`) + `)(/.*)?)?$`)

// graphRoots are kept whole, but for depth.
var graphRoots = regexp.MustCompile(`^/(users|groups|teams|chats|drives|subscriptions|invitations|directoryObjects|shares|places|sites)(/|$)`)

// graphLeft are parts that are left out: what is seldom asked of an agent, and large.
var graphLeft = regexp.MustCompile(`/(onenote|planner|termStore|termStores|workbook|contentTypes|columns|lists|listItem|managedDevices|deviceManagement\w*|getByPath.*|sites/\{[^}]*\}/sites|extensions|multiValueExtendedProperties|singleValueExtendedProperties|instances|calendarPermissions/.*/|settings|insights|activities|\$count|analytics|schedule|tabs/.*/teamsApp|operations|subscriptions/\{[^}]*\}/.+|followedSites|primaryChannel)(/|$)`)

func msGraph(w *work) error {
	w.Service = action.Service{
		Name: "msgraph", License: "MIT", Hosts: []string{"graph.microsoft.com", "graph.microsoft.us", "dod-graph.microsoft.us", "microsoftgraph.chinacloudapi.cn"},
		Env: []string{"GRAPH_ACCESS_TOKEN", "MSGRAPH_TOKEN", "AZURE_ACCESS_TOKEN"}, Places: []string{"bearer"}, Handle: "eyJ0eXAiOiJKV1Qi",
		Bases: []string{"/v1.0"}, Batches: map[string]string{"/v1.0/$batch": "odata"},
		Resources: []action.ResourceRule{{Type: "user", ID: "{user-id}"}, {Type: "group", ID: "{group-id}"}, {Type: "team", ID: "{team-id}"}, {Type: "drive", ID: "{drive-id}"}, {Type: "chat", ID: "{chat-id}"}, {Type: "site", ID: "{site-id}"}},
	}
	files, err := w.npmFiles(openAPIDirectory, func(name string) bool { return name == "api/microsoft.com/graph.json" })
	if err != nil {
		return err
	}
	o := w.options("")
	o.Keep = func(op *describe.Operation) bool {
		op.Path = strings.TrimPrefix(op.Path, "/v1.0")
		plain := strings.ReplaceAll(op.Path, "microsoft.graph.", "")
		if strings.Contains(plain, "/$") || graphLeft.MatchString(plain) || strings.Count(plain, "/") > 8 {
			return false
		}
		if graphAreas.MatchString(plain) {
			return true
		}
		return graphRoots.MatchString(plain) && strings.Count(plain, "/") <= 6 && !strings.HasPrefix(plain, "/groups/{group-id}/") && !strings.HasPrefix(plain, "/users/{user-id}/")
	}
	o.Rename = graphName
	if err := w.read("graph.json", files["api/microsoft.com/graph.json"], o); err != nil {
		return err
	}
	w.graphDrives()
	for _, path := range sorted(w.Paths) { // an action may be called without its namespace
		if short := strings.ReplaceAll(path, "/microsoft.graph.", "/"); short != path {
			for _, method := range sorted(w.Paths[path]) {
				put(&w.Service, short, method, w.row(path, method))
			}
		}
	}
	return nil
}

// graphName names an operation after its path, as the vendor's SDKs do: the fixed
// segments and a verb, or the action's or function's own name.
func graphName(op *describe.Operation) string {
	segments := strings.Split(strings.Trim(op.Path, "/"), "/")
	var name []string
	for _, s := range segments {
		if !strings.HasPrefix(s, "{") {
			name = append(name, s)
		}
	}
	last := segments[len(segments)-1]
	if call, ok := strings.CutPrefix(last, "microsoft.graph."); ok {
		call, _, _ = strings.Cut(call, "(")
		name[len(name)-1] = call
		return strings.Join(name, ".")
	}
	verb := map[string]string{"POST": "create", "PATCH": "update", "PUT": "replace", "DELETE": "delete"}[op.Method]
	single := []string{"me", "drive", "root", "calendar", "photo", "manager", "presence", "mailboxSettings", "outlook", "inferenceClassification", "team", "todo", "content", "$value"}
	switch {
	case verb != "":
	case strings.HasPrefix(last, "{") || slices.Contains(single, last):
		verb = "get"
	default:
		verb = "list"
	}
	return strings.Join(append(name, verb), ".")
}

// graphDrives gives the operations on the items of a drive their other places: the
// drive of a person, a group or a site, whose names begin with that place.
func (w *work) graphDrives() {
	places := map[string]string{"/me/drive": "me.drive", "/users/{user-id}/drive": "users.drive", "/groups/{group-id}/drive": "groups.drive", "/sites/{site-id}/drive": "sites.drive"}
	for _, path := range sorted(w.Paths) {
		rest, ok := strings.CutPrefix(path, "/drives/{drive-id}/")
		if !ok || !strings.HasPrefix(rest, "items") && !strings.HasPrefix(rest, "root") || strings.Count(rest, "/") > 3 {
			continue
		}
		for _, place := range sorted(places) {
			for _, method := range sorted(w.Paths[path]) {
				row := strings.ReplaceAll(" "+w.row(path, method), " drives.", " "+places[place]+".")
				row = strings.ReplaceAll(row, "undo=drives.", "undo="+places[place]+".")
				put(&w.Service, place+"/"+rest, method, row[1:])
			}
		}
	}
}
