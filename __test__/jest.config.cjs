module.exports = { rootDir: '..', testMatch: ['<rootDir>/__test__/jest/**/*.test.cjs'], modulePathIgnorePatterns: ['/benchmark/', '/npm/', '/toolchains/'] };
