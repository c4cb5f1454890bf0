// Answers with the path that it sees, decoded: node path.js PORT
const http = require('http')
http.createServer((req, res) => {
  let path
  try {
    path = decodeURIComponent(new URL(req.url, 'http://x').pathname)
  } catch {
    res.statusCode = 400
    return res.end()
  }
  res.end(path)
}).listen(+process.argv[2], '127.0.0.1')
