# Answers with the path that it sees, decoded: ruby path.rb PORT
require 'webrick'
server = WEBrick::HTTPServer.new(BindAddress: '127.0.0.1', Port: ARGV[0].to_i, AccessLog: [], Logger: WEBrick::Log.new(File::NULL))
server.mount_proc('/') { |req, res| res.body = req.path }
server.start
