# One request of Ruby's net/http. What to ask stands in the environment.
require "net/http"

uri = URI(ENV["URL"])
request = Net::HTTPGenericRequest.new(ENV["METHOD"], !ENV["BODY"].empty?, true, uri.request_uri, "Authorization" => "Bearer " + ENV["TOKEN"])
request.body = ENV["BODY"] unless ENV["BODY"].empty?
$stdout.sync = true
begin
  Net::HTTP.start(uri.host, uri.port, use_ssl: true, max_retries: 0) do |http|
    http.request(request) { |answer| answer.read_body { |chunk| print chunk } }
  end
rescue StandardError => e
  abort "#{e.class}: #{e.message}"
end
