package main

import (
	"chaperone/credential"
	"chaperone/policy"
	"chaperone/policy/action"
)

// usable are the actions of the services of a credential that the policy in force may
// some day allow to some agent; known is false where that cannot be told.
func (r *road) usable(c credential.Credential) (list []credential.Usable, known bool) {
	engine := r.counting.Load()
	if engine == nil {
		return nil, false
	}
	reach := engine.Reach()
	if reach == nil {
		return nil, false
	}
	catalogue := r.catalogue.Load()
	for _, s := range catalogue.Services() {
		if !credential.Covers(c.Service, s.Name) {
			continue
		}
		for _, host := range reach.Raw() { // what has no name needs no scope that is known
			if at := catalogue.ServiceFor(host, "/"); at == s {
				return nil, false
			}
		}
		list = append(list, mayOf(s, func(row *action.Row) bool { return reach.May(row.Keys(), row.Access) })...)
	}
	return list, true
}

func mayOf(s *action.Service, may func(*action.Row) bool) (list []credential.Usable) {
	rows := s.Rows()
	if len(s.GitHosts) > 0 { // git's own protocol is in no list
		rows = append(rows, action.Row{Action: s.Name + ":git/fetch", Access: policy.AccessRead}, action.Row{Action: s.Name + ":git/push", Access: policy.AccessWrite})
	}
	for _, row := range rows {
		if may(&row) {
			list = append(list, credential.Usable{Action: row.Action, Access: row.Access})
		}
	}
	return list
}
